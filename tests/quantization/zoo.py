"""A small network of all that quantizers find hard: depthwise, grouped, residual, squeeze-excitation, activations."""

import functools

import numpy as np
import torch
from torch import Tensor, nn

SHAPE = (3, 12, 12)
CLASSES = 6


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Block(nn.Module):
    """A residual sum about an inverted bottleneck."""

    def __init__(self, activation: nn.Module, groups: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), activation)
        self.filter = nn.Conv2d(16, 16, 3, padding=1, groups=groups, bias=False)
        self.norm, self.attend = nn.BatchNorm2d(16), SqueezeExcitation(16)
        self.project = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.attend(self.norm(self.filter(self.expand(x)))))


def zoo_network() -> nn.Module:
    """With random weights, and BN statistics of the noise that `zoo_images` are."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Block(nn.ReLU6(), groups=16),
        Block(nn.SiLU(), groups=4),
        Block(nn.PReLU(16), groups=1),
        Block(nn.Hardswish(), groups=16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )
    with torch.no_grad():
        for _ in range(30):
            network(torch.randn(32, *SHAPE))
    return network.eval()


@functools.cache
def zoo_images(count: int = 48) -> np.ndarray:
    """uint8 [N,C,H,W] that are N(0, 1) after mean 0.5 and std 0.2."""
    x = np.random.default_rng(0).standard_normal((count, *SHAPE)) * 0.2 + 0.5
    return (x.clip(0, 1) * 255).round().astype(np.uint8)


MEAN, STD = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
