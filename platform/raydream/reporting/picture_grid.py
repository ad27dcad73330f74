"""The picture grid of a run, images.png: images by class and by round."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from raydream.data.sources import evenly_spread
from raydream.errors import ShardError
from raydream.runs.run_folder import RunFolder
from raydream.store.atomic import write_atomically
from raydream.store.records import BatchId, ImageBatch
from raydream.store.shards import ShardStore

MOST_ROUNDS, MOST_CLASSES, EXAMPLES = 8, 10, 2
"""rounds and classes at most, and images of each class per round"""
MARGIN_LEFT, MARGIN_TOP, MARGIN = 112, 54, 12
"""in pixels: left (at least) and top hold the labels"""
GAP, ROUND_GAP = 3, 12
"""in pixels: between two images, and between two rounds"""

_CELL = 64
_MOST_VALUES = 800_000  # pixel values in a picture grid, so that images of any size make a file of few megabytes
_EMPTY = 225  # gray of a cell without an image
_INK = (28, 35, 48)


def image_grid(batches: Sequence[ImageBatch]) -> Image.Image:
    """Draw pictures by class (columns) and by round (rows, two examples of each class per round).

    Args:
        batches: one or more, of one image shape. Of more than `MOST_ROUNDS` rounds an even spread is shown. Of more
            than `MOST_CLASSES` classes the first are shown, those that all shown rounds have before others.

    Returns:
        a picture in which each pixel of a small image is a whole number of pixels; an image without 1 or 3 channels is
        shown by its first. A gray cell: the batches hold no (second) image of that class.

    Raises:
        ValueError: there is no batch, or the shapes of the images differ.
    """
    shapes = {batch.images.shape[1:] for batch in batches}
    if len(shapes) != 1:
        raise ValueError(f"image_grid needs batches of one image shape, and was given {sorted(shapes) or 'none'}")
    rounds = evenly_spread(sorted({batch.id.round for batch in batches}), MOST_ROUNDS)
    images, targets = [], []
    for shown in rounds:
        same = sorted((batch for batch in batches if batch.id.round == shown), key=lambda batch: batch.id)
        images.append(np.concatenate([batch.images for batch in same]))
        targets.append(np.concatenate([batch.targets for batch in same]))
    return _labeled_grid([f"round {shown}" for shown in rounds], images, targets)


def _labeled_grid(labels: Sequence[str], images: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> Image.Image:
    classes = shown_classes(targets)
    height, width = _cell_size(images[0].shape[1:], len(labels) * EXAMPLES * len(classes))
    row, column = EXAMPLES * (height + GAP) - GAP + ROUND_GAP, width + GAP
    mosaic = np.full((len(labels) * row - ROUND_GAP, len(classes) * column - GAP, 3), 255, np.uint8)
    for index, (pictures, shown) in enumerate(zip(images, targets, strict=True)):
        for place, label in enumerate(classes):
            found = pictures[shown == label]
            for example in range(EXAMPLES):
                top, left = index * row + example * (height + GAP), place * column
                cell = mosaic[top : top + height, left : left + width]
                cell[...] = _picture(found[example], height, width) if example < len(found) else _EMPTY
    return _labeled(mosaic, row, labels, column, classes)


def save_image_grid(folder: RunFolder) -> Path:
    """Write the picture grid of a run to its images.png, from the first batch of each round shown.

    Returns:
        path of images.png.

    Raises:
        ShardError: there is no shard, or one cannot be read.
        OSError: the folder cannot be written.
    """
    batches = grid_batches(folder)
    if not batches:
        raise ShardError(f"{folder.images} holds no image batch to show")
    content, path = io.BytesIO(), folder.path / "images.png"
    image_grid(batches).save(content, "PNG")
    write_atomically(path, lambda temporary: temporary.write_bytes(content.getvalue()))
    return path


def grid_batches(folder: RunFolder) -> list[ImageBatch]:
    """Read the batches that a picture grid of a run needs: only the first of each round shown.

    Raises:
        ShardError: a shard cannot be read.
    """
    store = ShardStore(folder.images)
    first: dict[int, BatchId] = {}
    for batch in store.committed():
        first[batch.round] = min(batch, first.get(batch.round, batch))
    return [store.read(first[shown]) for shown in evenly_spread(sorted(first), MOST_ROUNDS)]


def shown_classes(targets: Sequence[np.ndarray]) -> list[int]:
    """Return the classes that a grid shows, from the targets of each of its rows."""
    # A batch of 256 images cannot show each of 1,000 classes, so those that most rounds have come first.
    rounds_with: dict[int, int] = {}
    for labels in targets:
        for label in np.unique(labels):
            rounds_with[int(label)] = rounds_with.get(int(label), 0) + 1
    chosen = sorted(rounds_with, key=lambda label: (-rounds_with[label], label))[:MOST_CLASSES]
    return sorted(chosen)


def _cell_size(shape: tuple[int, ...], cells: int) -> tuple[int, int]:
    # Small images are magnified by a whole number, large ones are reduced.
    channels, height, width = shape
    longest = max(height, width)
    if longest <= _CELL:
        return height * (_CELL // longest), width * (_CELL // longest)
    side = min(longest, 2 * _CELL, max(_CELL // 2, math.isqrt(_MOST_VALUES // (cells * min(channels, 3)))))
    return max(1, height * side // longest), max(1, width * side // longest)


def _picture(image: np.ndarray, height: int, width: int) -> np.ndarray:
    # uint8 [C,H,W] to [height,width,3]: nearest neighbor.
    channels, rows, columns = image.shape
    shown = image if channels == 3 else np.repeat(image[:1], 3, axis=0)
    return shown[:, np.arange(height) * rows // height][:, :, np.arange(width) * columns // width].transpose(1, 2, 0)


def _labeled(mosaic: np.ndarray, row: int, labels: Sequence[str], column: int, classes: list[int]) -> Image.Image:
    font = ImageFont.load_default(18)
    margin = max(MARGIN_LEFT, 24 + round(max(map(font.getlength, labels))))
    height, width = mosaic.shape[0] + MARGIN_TOP + MARGIN, mosaic.shape[1] + margin + MARGIN
    picture = Image.new("RGB", (width, height), "white")
    picture.paste(Image.fromarray(mosaic), (margin, MARGIN_TOP))
    pen = ImageDraw.Draw(picture)
    pen.text((margin + mosaic.shape[1] / 2, 4), "target (class)", _INK, font, "mt")
    for index, label in enumerate(classes):
        pen.text((margin + (index + 0.5) * column, MARGIN_TOP - 6), str(label), _INK, font, "mb")
    for index, name in enumerate(labels):
        middle = MARGIN_TOP + (index + 0.5) * row - ROUND_GAP / 2
        pen.text((margin - 10, middle), name, _INK, font, "rm")
    return picture
