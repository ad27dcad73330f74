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
    """Return the share in [0, 1] of images whose highest logit is their label.

    Args:
        network: the network, in eval mode during the measurement only.
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
    """Return the step of the highest validation accuracy; the first of equals.

    Args:
        validation: accuracy by step, at least one.
    """
    return min(validation, key=lambda step: (-validation[step], step))


def accuracy_on(
    device: torch.device, network: nn.Module, normalization: Normalization, images: np.ndarray, labels: np.ndarray
) -> float:
    """Measure `accuracy` with a copy of the network on a device; the network itself is not moved."""
    return accuracy(copy.deepcopy(network).to(device), copy.deepcopy(normalization).to(device), images, labels)


@torch.no_grad()
def logits_of(
    network: nn.Module, normalization: Normalization, images: np.ndarray, batch_size: int = 500
) -> np.ndarray:
    """Return a network's logits for images, float32 [N,K]; arguments as those of `accuracy`."""
    training = network.training
    network.eval()
    try:
        batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
        said = [network(normalization(torch.from_numpy(np.array(batch)))).float().cpu().numpy() for batch in batches]
    finally:
        network.train(training)
    return np.concatenate(said)
