"""Conversion between pixels and a network's input: (pixels / 255 - mean) / std per channel, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CANVAS_STD = 0.225
"""standard deviation of the canvas, of pixel values in [0, 1]: about that of the ImageNet normalization, on which the
paper chose its settings"""


class Normalization(nn.Module):
    """The teacher's input normalization.

    Args:
        mean, std: one number per channel, of pixel values in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalize uint8 [N,C,H,W] to float32 [N,C,H,W]."""
        # Moved before they are converted: a quarter of the bytes.
        return (images.to(self.mean.device).float() / 255.0 - self.mean) / self.std

    def quantize(self, x: Tensor) -> Tensor:
        """Map normalized float [N,C,H,W] to the nearest uint8 in 0..255."""
        pixels = (x.detach().float() * self.std + self.mean) * 255.0
        return pixels.round().clamp(0, 255).to(torch.uint8)

    def valid_range(self) -> tuple[Tensor, Tensor]:
        """Return the normalized pixel values 0 and 1, each [1,C,1,1]: lowest and highest (the image clipping)."""
        return -self.mean / self.std, (1.0 - self.mean) / self.std

    def canvas(self) -> "Normalization":
        """Return the normalization in which pixels are optimized and augmented: this mean, and `CANVAS_STD`.

        Start, learning rate, image prior and brightness are in its units. They therefore mean the same for all
        teachers, whatever their std. A network's input is the canvas times `from_canvas`.
        """
        std = [CANVAS_STD] * self.mean.numel()
        return Normalization(self.mean.flatten().tolist(), std).to(self.mean.device)

    def from_canvas(self) -> Tensor:
        """Return the factor from the canvas to the network's input, [1,C,1,1]."""
        return CANVAS_STD / self.std
