"""Views: how the images look to the networks in one update, and the way back for the gradient.

A view moves pixels and computes nothing, so it is a single gather by an index of places. Images lie channels-last
before and after it: rolling and mirroring would copy them twice, and leave them in another order.
"""

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
        """Return images [N,C,H,W] as they are seen, channels-last."""
        height, width = (torch.arange(side, device=x.device) for side in x.shape[2:])
        columns = width.flip(0) if self.mirrored else width
        return _gathered(x, height - self.down, columns - self.right)

    def back(self, gradient: Tensor) -> Tensor:
        """Turn a gradient [N,C,H,W] with respect to what is seen into one with respect to the images, channels-last."""
        height, width = (torch.arange(side, device=gradient.device) for side in gradient.shape[2:])
        columns = width + self.right
        # Where it has arrived is counted from the other side of a mirrored image.
        return _gathered(gradient, height + self.down, -1 - columns if self.mirrored else columns)


def _gathered(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels at these rows and columns of images [N,C,H,W], all of which go round."""
    count, channels, height, width = x.shape
    places = (rows % height).unsqueeze(1) * width + columns % width
    pixels = x.permute(0, 2, 3, 1).reshape(count, height * width, channels)
    return pixels.index_select(1, places.flatten()).view(count, height, width, channels).permute(0, 3, 1, 2)


def draw_view(jitter: int, flip: bool, random: torch.Generator) -> View:
    """A view rolled by up to `jitter` pixels each way, and mirrored half of the time if `flip`."""
    # Drawn on the CPU, so that the loop never waits for a GPU to tell a number.
    down, right = torch.randint(-jitter, jitter + 1, (2,), generator=random).tolist() if jitter else (0, 0)
    return View(down, right, flip and bool(torch.rand((), generator=random) < 0.5))
