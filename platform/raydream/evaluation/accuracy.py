"""Top-1 accuracy."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from raydream.teachers.normalization import Normalization


@torch.no_grad()
def accuracy(
    network: nn.Module, normalization: Normalization, images: np.ndarray, labels: np.ndarray, batch_size: int = 500
) -> float:
    """Share in [0, 1] of images whose highest logit is their label.

    Args:
        network: is put in eval mode for the measurement and back afterwards.
        images: uint8 [N,C,H,W], N >= 1.
        labels: int [N].
    """
    training = network.training
    network.eval()
    hits = 0
    try:
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(np.array(images[start : start + batch_size]))
            named = network(normalization(pixels)).argmax(1).cpu().numpy()
            hits += int((named == labels[start : start + batch_size]).sum())
    finally:
        network.train(training)
    return hits / len(images)


def best_step(validation: Mapping[int, float]) -> int:
    """The step that validation images choose: that of the highest accuracy, and of equals the first.

    Args:
        validation: accuracy by step, one at least.
    """
    return min(validation, key=lambda step: (-validation[step], step))


def accuracy_on(
    device: torch.device, network: nn.Module, normalization: Normalization, images: np.ndarray, labels: np.ndarray
) -> float:
    """`accuracy` as a copy of the network measures it on a device; the network stays where it is."""
    return accuracy(copy.deepcopy(network).to(device), copy.deepcopy(normalization).to(device), images, labels)


@torch.no_grad()
def logits_of(
    network: nn.Module, normalization: Normalization, images: np.ndarray, batch_size: int = 500
) -> np.ndarray:
    """What a network says of images: float32 [N,K]; arguments as those of `accuracy`."""
    training = network.training
    network.eval()
    try:
        batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
        said = [network(normalization(torch.from_numpy(np.array(batch)))).float().cpu().numpy() for batch in batches]
    finally:
        network.train(training)
    return np.concatenate(said)
