"""Views: how the images look to the networks in one update, and the way back for the gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One update's view; the whole batch gets the same, as in the published code.

    Attributes:
        down, right: pixels that the images are rolled by.
        mirrored: whether they are then mirrored left to right.
    """

    down: int
    right: int
    mirrored: bool

    def __call__(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] as they are seen."""
        if self.down or self.right:
            x = torch.roll(x, (self.down, self.right), dims=(2, 3))
        return x.flip(3) if self.mirrored else x

    def back(self, gradient: Tensor) -> Tensor:
        """A gradient [N,C,H,W] with respect to what is seen, as one with respect to the images."""
        if self.mirrored:
            gradient = gradient.flip(3)
        if self.down or self.right:
            gradient = torch.roll(gradient, (-self.down, -self.right), dims=(2, 3))
        return gradient


def draw_view(jitter: int, flip: bool, random: torch.Generator) -> View:
    """A view rolled by up to `jitter` pixels each way, and mirrored half of the time if `flip`."""
    # Drawn on the CPU, so that the loop never waits for a GPU to tell a number.
    down, right = torch.randint(-jitter, jitter + 1, (2,), generator=random).tolist() if jitter else (0, 0)
    return View(down, right, flip and bool(torch.rand((), generator=random) < 0.5))
