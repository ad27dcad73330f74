"""The network that makes images from latent codes: a linear layer, then stages that double the size."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.config import GeneratorNetworkConfig
from raydream.teachers.teacher import Teacher

LARGEST_BASE = 8
"""maximum side, in pixels, of the linear layer's output, as in the published networks for 32 x 32 pixels"""


class GeneratorNetwork(nn.Module):
    """Maps latent codes [N,Z] to images [N,C,H,W] on the canvas, within the range of real pixels.

    As DAFL and FastDFKD have it: BN after the linear layer and after each convolution, a leaky ReLU of slope 0.2, and a
    sigmoid that makes pixel values in [0, 1]. BN uses the batch's own statistics at all times, as images are made in
    training mode there too, so it keeps no running ones.

    Args:
        config: the network's sizes.
        teacher: the teacher whose input the images fit.
    """

    low: Tensor
    high: Tensor

    def __init__(self, config: GeneratorNetworkConfig, teacher: Teacher) -> None:
        super().__init__()
        channels, *size = teacher.config.input_shape
        doublings = max(2, math.ceil(math.log2(max(size) / LARGEST_BASE)))
        self._sizes = [[max(2, math.ceil(side / 2**left)) for side in size] for left in range(doublings, -1, -1)]
        self._sizes[-1] = size
        self._wide = 2 * config.width
        self.linear = nn.Linear(config.latent, self._wide * math.prod(self._sizes[0]))
        self.first_norm = _norm(self._wide)
        widths = [*[self._wide] * doublings, config.width]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, 1, 1, bias=False) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(_norm(width) for width in widths[1:])
        self.last = nn.Conv2d(config.width, channels, 3, 1, 1)
        low, high = teacher.normalization.canvas().valid_range()
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.first_norm(self.linear(codes).view(-1, self._wide, *self._sizes[0]))
        for size, convolution, norm in zip(self._sizes[1:], self.convolutions, self.norms, strict=True):
            x = functional.leaky_relu(norm(convolution(functional.interpolate(x, size))), 0.2)
        pixels = torch.sigmoid(self.last(x).to(self.low.dtype))  # under autocast, too, finer than a byte
        return self.low + (self.high - self.low) * pixels


def fresh_network(config: GeneratorNetworkConfig, teacher: Teacher, seed: int) -> GeneratorNetwork:
    """Build a network on the teacher's device, with weights determined by a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return GeneratorNetwork(config, teacher).to(teacher.device)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, track_running_stats=False)
