"""Measures of images and of a student that need no real images."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from raydream.losses.feature_statistics import FeatureDistances, feature_statistics
from raydream.networks.observed import ObservedNetwork, WithFeatures, last_layer
from raydream.teachers.teacher import Teacher

CHUNK = 500


@torch.no_grad()
def agreement(teacher: Teacher, student: nn.Module, images: np.ndarray) -> float:
    """Return the share in [0, 1] of images for which student and teacher predict the same class.

    Args:
        student: on the teacher's device; in eval mode during the measurement only.
        images: uint8 [N,C,H,W], N >= 1.
    """
    training, same = student.training, 0
    student.eval()
    try:
        for pixels in _chunks(images):
            seen = teacher.normalization(pixels)
            same += int((student(seen).argmax(1) == teacher.network(seen).argmax(1)).sum())
    finally:
        student.train(training)
    return same / len(images)


@torch.no_grad()
def feature_distance(teacher: Teacher, batches: Iterable[np.ndarray], first_bn: float = 1.0) -> float:
    """Compute R_feature (eq. 4-5) of stored images, neither jittered nor mirrored; the mean over batches.

    Args:
        batches: each uint8 [N,C,H,W]; the statistics are of a whole batch, so only sets of one batch size compare.
        first_bn: multiplier of the first layer's distance.

    Raises:
        ValueError: the teacher has no BN layer with running statistics.
    """
    observed = ObservedNetwork(teacher.network, statistics=True)
    distances, found = FeatureDistances(observed), []
    for images in batches:
        seen = observed(teacher.normalization(torch.from_numpy(np.array(images))))
        found.append(float(feature_statistics(distances(seen.statistics), first_bn)))
    return sum(found) / len(found)


def diversity(teacher: Teacher, images: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean distance of two images of one target relative to that of any two; 0: a target's are alike.

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
    """Return the teacher's last layer's inputs, float32 [N,D], or logits where it has none (see `last_layer`).

    Args:
        images: uint8 [N,C,H,W].
    """
    try:
        before = last_layer(teacher.network, teacher.config.classes)
    except ValueError:
        return torch.cat([teacher.logits(pixels) for pixels in _chunks(images)])
    both = WithFeatures(teacher.network, before)
    return torch.cat([both(teacher.normalization(pixels))[1] for pixels in _chunks(images)]).float()


def _chunks(images: np.ndarray) -> Iterable[Tensor]:
    return (torch.from_numpy(np.array(images[first : first + CHUNK])) for first in range(0, len(images), CHUNK))
