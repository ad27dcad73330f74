"""Random views of images, drawn per image from a given generator, so that a step can be repeated to the bit."""

import torch
from torch import Tensor

from raydream.config import StudentConfig


def random_shift(x: Tensor, most: int, fill: Tensor | float, random: torch.Generator) -> Tensor:
    """Each image shifted by up to `most` pixels each way, with `fill` moving in at the edge.

    Args:
        x: [N,C,H,W].
        most: pixels >= 0.
        fill: what black pixels look like after normalisation, broadcastable to [1,C,1,1].
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
    """Each image [N,C,H,W] mirrored left to right with probability one half."""
    mirrored = (torch.rand(len(x), generator=random) < 0.5).to(x.device).view(-1, 1, 1, 1)
    return torch.where(mirrored, x.flip(3), x)


def mixup(x: Tensor, alpha: float, random: torch.Generator) -> Tensor:
    """MixUp without labels (Zhang et al. 2018): each image blended with another, by one Beta(alpha, alpha) weight.

    In distillation the teacher looks at the blend itself, so nothing but pixels is mixed.
    """
    # Gamma(a)/(Gamma(a)+Gamma(b)) is Beta(a, b); torch.distributions takes no generator.
    gammas = torch._standard_gamma(torch.full((2,), alpha), generator=random)
    weight = float(gammas[0] / gammas.sum())
    order = torch.randperm(len(x), generator=random).to(x.device)
    return weight * x + (1.0 - weight) * x[order]


def student_view(x: Tensor, config: StudentConfig, fill: Tensor, random: torch.Generator) -> Tensor:
    """The view of images [N,C,H,W] that teacher and student both see in one distillation step."""
    x = random_shift(x, config.shift, fill, random)
    if config.flip:
        x = random_flip(x, random)
    if config.mixup:
        x = mixup(x, config.mixup, random)
    return x
