"""Labeled pictures of a batch of images, a row for each class."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CLASSES = 10
"""classes in one picture"""
MOST_PICTURES = 5
"""pictures of one batch: of more classes the first are shown"""
EXAMPLES = 10
"""images of a class"""
SMALLEST, LARGEST = 64, 128
"""pixels of an image's longer side: smaller ones are magnified up to the first, larger ones reduced to the second"""
GAP, TEXT = 4, 22
"""pixels between two images, and of the letters"""


def class_pictures(images: np.ndarray, targets: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Draw the images of a batch sorted by class, each class in a row with its label.

    Args:
        images: uint8 [N,C,H,W], of which the first channel is shown if C is not 1 or 3.
        targets: int [N], their classes.

    Yields:
        the name of a picture, such as `classes 0-9`, and the picture, uint8 [height,width,3]. The classes of a name
        stay the same from batch to batch, whichever of them the batch has.
    """
    groups = sorted({int(target) // CLASSES for target in targets})[:MOST_PICTURES]
    for group in groups:
        first = group * CLASSES
        shown = [label for label in range(first, first + CLASSES) if (targets == label).any()]
        rows = [images[targets == label][:EXAMPLES] for label in shown]
        yield f"classes {first}-{first + CLASSES - 1}", _drawn([f"class {label}" for label in shown], rows)


def _drawn(labels: list[str], rows: list[np.ndarray]) -> np.ndarray:
    font = ImageFont.load_default(TEXT)
    margin = 2 * GAP + max(int(font.getlength(label)) for label in labels)
    cells = [[_cell(image) for image in row] for row in rows]
    height, width, _ = cells[0][0].shape
    across = max(map(len, cells))
    size = (margin + across * (width + GAP), GAP + len(cells) * (height + GAP))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for number, (label, row) in enumerate(zip(labels, cells, strict=True)):
        top = GAP + number * (height + GAP)
        draw.text((GAP, top + height // 2), label, fill="black", font=font, anchor="lm")
        for place, cell in enumerate(row):
            picture.paste(Image.fromarray(cell), (margin + place * (width + GAP), top))
    return np.asarray(picture)


def _cell(image: np.ndarray) -> np.ndarray:
    """Return uint8 [C,H,W] as [height,width,3], magnified or reduced by a whole number to its nearest neighbors."""
    colors = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    longest = max(image.shape[1:])
    times, stride = max(1, SMALLEST // longest), -(-longest // LARGEST)
    return colors[:, ::stride, ::stride].repeat(times, 1).repeat(times, 2).transpose(1, 2, 0)
