"""What can be said of images and of a student without any real image."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from raydream.losses.feature_statistics import ObservedNetwork, feature_statistics
from raydream.teachers.teacher import Teacher

CHUNK = 500


@torch.no_grad()
def agreement(teacher: Teacher, student: nn.Module, images: np.ndarray) -> float:
    """Share in [0, 1] of images on which student and teacher name the same class.

    Args:
        student: on the teacher's device; is put in eval mode for the measurement and back afterwards.
        images: uint8 [N,C,H,W], N >= 1.
    """
    training, same = student.training, 0
    student.eval()
    try:
        for pixels in _chunks(images):
            seen = teacher.normalisation(pixels)
            same += int((student(seen).argmax(1) == teacher.network(seen).argmax(1)).sum())
    finally:
        student.train(training)
    return same / len(images)


@torch.no_grad()
def feature_distance(teacher: Teacher, batches: Iterable[np.ndarray], first_bn: float = 1.0) -> float:
    """R_feature (eq. 4-5) of images as they are stored, neither jittered nor mirrored; the mean over batches.

    Args:
        batches: each uint8 [N,C,H,W]; the statistics are of a whole batch, so only sets of one batch size compare.
        first_bn: multiplier of the first layer's distance.

    Raises:
        ValueError: the teacher has no BN layer with running statistics.
    """
    observed = ObservedNetwork(teacher.network)
    distances = []
    for images in batches:
        _, statistics = observed(teacher.normalisation(torch.from_numpy(np.array(images))))
        distances.append(float(feature_statistics(observed.distances(statistics), first_bn)))
    return sum(distances) / len(distances)


def diversity(teacher: Teacher, images: np.ndarray, targets: np.ndarray) -> float:
    """Mean distance of two images of one target, relative to that of two images of any; 0: all of a target are alike.

    Distances are Euclidean, between the teacher's features (see `features`).

    Args:
        images: uint8 [N,C,H,W].
        targets: int64 [N]; those that come once only count among "any".

    Returns:
        >= 0; nan where no target comes twice, or all images are alike.
    """
    found = features(teacher, images)
    apart = torch.cdist(found, found)
    labels = torch.from_numpy(np.array(targets))
    same = (labels[:, None] == labels[None, :]).to(apart.device)
    pairs = ~torch.eye(len(labels), dtype=torch.bool, device=apart.device)
    return float(apart[same & pairs].mean() / apart[pairs].mean())


@torch.no_grad()
def features(teacher: Teacher, images: np.ndarray) -> Tensor:
    """What enters the teacher's last linear layer, float32 [N,D]; the logits of a network without one.

    Args:
        images: uint8 [N,C,H,W].
    """
    linear = [layer for layer in teacher.network.modules() if isinstance(layer, nn.Linear)]
    seen: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0])) if linear else None
    try:
        logits = [teacher.logits(pixels) for pixels in _chunks(images)]
    finally:
        if hook:
            hook.remove()
    return torch.cat(seen or logits).flatten(1).float()


def _chunks(images: np.ndarray) -> Iterable[Tensor]:
    return (torch.from_numpy(np.array(images[first : first + CHUNK])) for first in range(0, len(images), CHUNK))
