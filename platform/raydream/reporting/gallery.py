"""The gallery of a page: images by class, with what the networks say they show, and real images beside them."""

import base64
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from raydream.data import Split
from raydream.data.sources import evenly_spread
from raydream.reporting.charts import Mosaic
from raydream.runs.run_folder import RunFolder
from raydream.store.records import BatchId, ImageBatch
from raydream.store.shards import ShardStore

MOST_ROUNDS, EXAMPLES, REAL_EXAMPLES = 8, 2, 2
"""rounds that are shown at most; images of a class in each of them, and real ones"""
MOST_IMAGES = 400
"""of a gallery, at most, where there are fewer classes; of more classes, one image each"""
MOST_READ = 40
"""batches that are read at most, to find an image of every class"""
LARGEST = 128
"""side of a picture in pixels, at most"""
MOST_PIXELS = 2_000_000
"""of all pictures of a gallery, so that a page has few megabytes"""
LOSSLESS = 40
"""side up to which pictures are PNG; larger ones are JPEG, as PNG barely compresses noise"""
NAMED = 5
"""classes whose probabilities are shown, the likeliest"""

Probabilities = Sequence[tuple[int, float]]
"""the likeliest classes and their probabilities, the likeliest first"""
Ask = Callable[[np.ndarray], np.ndarray | None]
"""from uint8 [N,C,H,W] to a network's logits [N,K]; None where the network is missing"""


@dataclass(frozen=True)
class Shown:
    """An image of a gallery.

    Attributes:
        source: data URI.
        label: its class: the target that it was made for, or the label of a real image.
        round: that it was made in; None for a real image.
        teacher, student: their answers; empty where they are unknown.
    """

    source: str
    label: int
    round: int | None = None
    teacher: Probabilities = ()
    student: Probabilities = ()

    @property
    def on_target(self) -> bool:
        """Return whether the teacher classifies it as its class."""
        return bool(self.teacher) and self.teacher[0][0] == self.label

    @property
    def text(self) -> str:
        """Return what the image is, in words."""
        if self.round is None:
            return f"class {self.label}, a real image"
        label, share = self.teacher[0]
        return f"class {self.label}, round {self.round}; the teacher names {label} ({share:.0%})"


@dataclass(frozen=True)
class Gallery:
    """Images by class.

    Attributes:
        caption: one sentence: what the reader should see in it.
        classes: each class and its images, the real ones first.
        side: of the largest picture, in pixels.
    """

    kind: ClassVar[str] = "gallery"
    caption: str
    classes: Sequence[tuple[int, Sequence[Shown]]]
    side: int

    @property
    def images(self) -> list[Shown]:
        return [image for _, images in self.classes for image in images]

    @property
    def rounds(self) -> list[int]:
        return sorted({image.round for image in self.images if image.round is not None})

    @property
    def data(self) -> list[dict[str, Any]]:
        """Return what the page's script shows of each image, in the types of JSON."""
        return [
            {
                "class": image.label,
                "round": image.round,
                "on_target": image.on_target if image.round is not None else None,
                "teacher": image.teacher,
                "student": image.student,
            }
            for image in self.images
        ]


def gallery_batches(folder: RunFolder) -> list[ImageBatch]:
    """Read the first batch of each round shown, and more of the last rounds until each class has an image.

    Raises:
        ShardError: a shard cannot be read.
    """
    store = ShardStore(folder.images)
    first: dict[int, BatchId] = {}
    committed = store.committed()
    for batch in committed:
        first[batch.round] = min(batch, first.get(batch.round, batch))
    found = [store.read(first[shown]) for shown in evenly_spread(sorted(first), MOST_ROUNDS)]
    seen = {int(label) for batch in found for label in batch.targets}
    classes = found[0].teacher_logits.shape[1] if found else 0
    shown = {batch.id.round for batch in found}
    more = sorted((batch for batch in committed if batch.round in shown and batch != first[batch.round]), reverse=True)
    for batch in more[: MOST_READ - len(found)]:
        if len(seen) == classes:
            break
        found.append(store.read(batch))
        seen |= {int(label) for label in found[-1].targets}
    return sorted(found, key=lambda batch: batch.id)


def gallery(batches: Sequence[ImageBatch], ask: Ask, real: Split | None, caption: str) -> Gallery | None:
    """Build a gallery of the first images of each class in each round; None without batches.

    Args:
        batches: of one image shape, in order.
        ask: for the student's answers.
        real: real images, to show beside them; left out if they have another shape.
    """
    if not batches:
        return None
    labels = sorted({int(label) for batch in batches for label in batch.targets})
    most = max(1, MOST_IMAGES // len(labels))
    chosen: list[tuple[int, np.ndarray, ImageBatch | None, int]] = []  # class, image, and its batch and row
    for label in labels:
        if real is not None and real.images.shape[1:] == batches[0].images.shape[1:]:
            rows = np.flatnonzero(real.labels == label)[:REAL_EXAMPLES]
            chosen += [(label, real.images[row], None, row) for row in rows]
        places = _some(list(_first(batches, label)), most)
        chosen += [(label, batches[at].images[row], batches[at], row) for at, row in places]
    images = np.stack([image for _, image, _, _ in chosen])
    answers, side = ask(images), _side(images.shape[2:], len(images))
    shown: dict[int, list[Shown]] = {label: [] for label in labels}
    for index, (label, image, batch, row) in enumerate(chosen):
        student = likeliest(answers[index]) if answers is not None else ()
        teacher = likeliest(batch.teacher_logits[row]) if batch else ()
        shown[label].append(Shown(picture(image, side), label, batch.id.round if batch else None, teacher, student))
    return Gallery(caption, list(shown.items()), max(images.shape[2:]))


def _first(batches: Sequence[ImageBatch], label: int) -> Iterator[tuple[int, int]]:
    """Return batch and row of the first images of a class in each round."""
    counts: dict[int, int] = {}
    for at, batch in enumerate(batches):
        for row in np.flatnonzero(batch.targets == label):
            if counts.setdefault(batch.id.round, 0) < EXAMPLES:
                counts[batch.id.round] += 1
                yield at, int(row)


def _some(places: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    return places[-1:] if most == 1 else evenly_spread(places, most)


def _side(shape: Sequence[int], count: int) -> int:
    return min(max(shape), LARGEST, math.isqrt(MOST_PIXELS // max(1, count)))


def likeliest(logits: np.ndarray) -> Probabilities:
    """Return the likeliest classes and their probabilities of one image's logits [K]."""
    with np.errstate(invalid="ignore"):
        shares = np.exp(logits.astype(np.float64) - logits.max())
    shares = np.nan_to_num(shares / shares.sum(), nan=0.0)
    first = np.argsort(-shares, kind="stable")[:NAMED]
    return [(int(label), round(float(shares[label]), 4)) for label in first]


def picture(image: np.ndarray, side: int = LARGEST) -> str:
    """Return an image as a data URI.

    Args:
        image: uint8 [C,H,W]; of other than three channels the first is shown.
        side: of the larger side, at most.
    """
    shown = Image.fromarray(image.transpose(1, 2, 0) if len(image) == 3 else image[0])
    if max(shown.size) > side:
        shown.thumbnail((side, side), Image.Resampling.BOX)
    content, kind = io.BytesIO(), "PNG" if max(shown.size) <= LOSSLESS else "JPEG"
    shown.save(content, kind, **({} if kind == "PNG" else {"quality": 85}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def mosaic(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]], caption: str, examples: int = 1, most_columns: int = 20
) -> Mosaic:
    """Show images in a table: a row each, a column for each class.

    Args:
        rows: name, uint8 [N,C,H,W] and their classes, int [N].
        examples: images of a class in a row.
        most_columns: classes at most: the first of those that most rows have.
    """
    having: dict[int, int] = {}
    for _, _, targets in rows:
        for label in np.unique(targets):
            having[int(label)] = having.get(int(label), 0) + 1
    classes = sorted(sorted(having, key=lambda label: (-having[label], label))[:most_columns])
    cells = [
        (name, [[picture(images[row]) for row in np.flatnonzero(targets == label)[:examples]] for label in classes])
        for name, images, targets in rows
    ]
    return Mosaic(caption, [str(label) for label in classes], cells)
