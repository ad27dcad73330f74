"""Random views of images, drawn per image from a given generator, so that a step can be repeated to the bit."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def random_shift(x: Tensor, most: int, fill: Tensor | float, random: torch.Generator) -> Tensor:
    """Shift each image by up to `most` pixels each way, with `fill` at the edge.

    Args:
        x: [N,C,H,W].
        most: pixels >= 0.
        fill: what black pixels are in `x`, broadcastable to [1,C,1,1].
    """
    if most == 0:
        return x
    count, _, height, width = x.shape
    padded = x.new_empty(count, x.shape[1], height + 2 * most, width + 2 * most)
    padded[:] = fill
    padded[:, :, most:-most, most:-most] = x
    corners = torch.randint(0, 2 * most + 1, (2, count), generator=random).to(x.device)
    rows = corners[0].view(-1, 1, 1) + torch.arange(height, device=x.device).view(1, -1, 1)
    columns = corners[1].view(-1, 1, 1) + torch.arange(width, device=x.device).view(1, 1, -1)
    images = torch.arange(count, device=x.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[images, rows, columns].permute(0, 3, 1, 2)


def random_flip(x: Tensor, random: torch.Generator) -> Tensor:
    """Mirror each image [N,C,H,W] left to right with probability one half."""
    mirrored = (torch.rand(len(x), generator=random) < 0.5).to(x.device).view(-1, 1, 1, 1)
    return torch.where(mirrored, x.flip(3), x)


def random_affine(x: Tensor, zoom: float, rotation: float, random: torch.Generator) -> Tensor:
    """Scale and rotate each image about its center, bilinearly; beyond its edge it is reflected.

    Args:
        x: [N,C,H,W].
        zoom: largest relative change of the sides, in [0, 1).
        rotation: largest angle each way in degrees, in [0, 180].
    """
    if zoom == 0 and rotation == 0:
        return x
    height, width = x.shape[2:]
    scale, angle = _even(len(x), random).mul(zoom).add(1.0), _even(len(x), random).mul(math.radians(rotation))
    sine, cosine, none = scale * angle.sin(), scale * angle.cos(), torch.zeros(len(x))
    # Coordinates run from -1 to 1 along both sides, however long these are.
    rows = [
        torch.stack([cosine, -sine * height / width, none], 1),
        torch.stack([sine * width / height, cosine, none], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1).to(x.device), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def random_tone(x: Tensor, brightness: float, contrast: float, random: torch.Generator) -> Tensor:
    """Scale each image [N,C,H,W], all channels alike, by 1 +/- up to `contrast`, and add +/- up to `brightness`."""
    if brightness == 0 and contrast == 0:
        return x
    factor, offset = _even(len(x), random).mul(contrast).add(1.0), _even(len(x), random).mul(brightness)
    return x * factor.to(x.device).view(-1, 1, 1, 1) + offset.to(x.device).view(-1, 1, 1, 1)


def cutout(x: Tensor, side: int, random: torch.Generator) -> Tensor:
    """Set a square of `side` pixels in each image [N,C,H,W] to 0 (DeVries & Taylor 2017).

    The square's center is anywhere in the image, so that a part of it may lie outside.
    """
    if side == 0:
        return x
    height, width = x.shape[2:]
    top = torch.randint(0, height, (len(x), 1), generator=random) - side // 2
    left = torch.randint(0, width, (len(x), 1), generator=random) - side // 2
    rows = (torch.arange(height) >= top) & (torch.arange(height) < top + side)
    columns = (torch.arange(width) >= left) & (torch.arange(width) < left + side)
    square = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1).to(x.device)
    return x.masked_fill(square, 0.0)


def mixup(x: Tensor, alpha: float, random: torch.Generator) -> Tensor:
    """Blend each image with another by one Beta(alpha, alpha) weight: MixUp without labels (Zhang et al. 2018).

    In distillation the teacher classifies the blend itself, so only pixels are mixed.
    """
    # Gamma(a)/(Gamma(a)+Gamma(b)) is Beta(a, b); torch.distributions takes no generator.
    gammas = torch._standard_gamma(torch.full((2,), alpha), generator=random)
    weight = float(gammas[0] / gammas.sum())
    order = torch.randperm(len(x), generator=random).to(x.device)
    return weight * x + (1.0 - weight) * x[order]


def _even(count: int, random: torch.Generator) -> Tensor:
    """Draw [count] numbers, uniform in [-1, 1]."""
    return torch.rand(count, generator=random).mul(2.0).sub(1.0)
