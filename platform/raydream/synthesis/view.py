"""Views: what the networks see of the images in one update, and the inverse for the gradient.

A view of an inversion moves pixels and computes nothing, so it is a single gather by an index of places. Images lie
channels-last before and after it: rolling and mirroring would copy them twice, and leave them in another order.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One update's view, the same for the whole batch, as in the published code.

    Attributes:
        down, right: pixels that the images are rolled by.
        mirrored: whether they are then mirrored left to right, 0 or 1.

    The attributes are numbers, or int64 scalars on the images' device.
    """

    down: int | Tensor
    right: int | Tensor
    mirrored: int | Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return images [N,C,H,W] as they are seen, channels-last."""
        height, width = (torch.arange(side, device=x.device) for side in x.shape[2:])
        columns = self.mirrored * (len(width) - 1) + (1 - 2 * self.mirrored) * width
        return _gathered(x, height - self.down, columns - self.right)

    def back(self, gradient: Tensor) -> Tensor:
        """Turn a gradient [N,C,H,W] with respect to what is seen into one with respect to the images, channels-last."""
        height, width = (torch.arange(side, device=gradient.device) for side in gradient.shape[2:])
        columns = width + self.right
        # Where it has arrived is counted from the other side of a mirrored image.
        return _gathered(gradient, height + self.down, (1 - 2 * self.mirrored) * columns - self.mirrored)


def _gathered(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Gather the pixels at these rows and columns of images [N,C,H,W]; both wrap around."""
    count, channels, height, width = x.shape
    places = (rows % height).unsqueeze(1) * width + columns % width
    pixels = x.permute(0, 2, 3, 1).reshape(count, height * width, channels)
    return pixels.index_select(1, places.flatten()).view(count, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class CroppedView:
    """One update's view, different for each image, as in FastDFKD and NAYER.

    Attributes:
        rows: int64 [N,H], the image's row seen in each row of the view; rows outside the image show the background.
        columns: int64 [N,W], likewise; in descending order where the image is mirrored.
        background: [1,C,1,1], what is seen outside of an image.
    """

    rows: Tensor
    columns: Tensor
    background: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return images [N,C,H,W] as they are seen."""
        _, channels, height, width = x.shape
        rows, columns = self.rows[:, None, :, None], self.columns[:, None, None, :]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        image = torch.arange(len(x), device=x.device)[:, None, None, None]
        channel = torch.arange(channels, device=x.device)[None, :, None, None]
        moved = x[image, channel, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
        return torch.where(inside, moved, self.background)


def draw_crops(
    size: tuple[int, int, int], padding: int, flip: bool, background: Tensor, random: torch.Generator
) -> CroppedView:
    """Draw views that are shifted by up to `padding` pixels each way, and mirrored half of the time if `flip`.

    Args:
        size: number of images, height and width.
        background: see `CroppedView`; on the images' device.
    """
    count, height, width = size
    down, right = torch.randint(-padding, padding + 1, (2, count, 1), generator=random)
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    if flip:
        mirrored = torch.rand((count, 1), generator=random) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    return CroppedView(rows.to(background.device), columns.to(background.device), background)


def draw_view(jitter: int, flip: bool, random: torch.Generator) -> View:
    """Draw a view rolled by up to `jitter` pixels each way, and mirrored half of the time if `flip`."""
    # Drawn on the CPU, so that the loop never waits for a GPU to tell a number.
    down, right = torch.randint(-jitter, jitter + 1, (2,), generator=random).tolist() if jitter else (0, 0)
    return View(down, right, int(flip and bool(torch.rand((), generator=random) < 0.5)))
