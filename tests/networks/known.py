"""A network whose statistics are known, and how to compute them slowly."""

import math

import numpy as np
import torch
from torch import nn


def slow_statistics(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and biased variance of each channel, one number after the other."""
    means, variances = [], []
    for channel in range(x.shape[1]):
        values = [float(value) for value in np.moveaxis(x, 1, 0)[channel].reshape(-1)]
        means.append(math.fsum(values) / len(values))
        variances.append(math.fsum((value - means[-1]) ** 2 for value in values) / len(values))
    return means, variances


def mixed_network() -> nn.Sequential:
    """A network with a BN layer of each kind, all with statistics of their own, in eval mode and float64."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4), nn.BatchNorm1d(4)
    ).double()
    for index in (1, 5):
        layer = network[index]
        layer.running_mean.copy_(torch.randn(layer.num_features))
        layer.running_var.copy_(torch.rand(layer.num_features) + 0.5)
        nn.init.uniform_(layer.weight)
    return network.eval()


def some_images(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
