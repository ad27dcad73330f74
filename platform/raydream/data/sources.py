"""Finished sets of images from any source, and the part of one that a student sees."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from raydream.seeds import derive_seed
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore

Value = TypeVar("Value")


class Source(Protocol):
    """A set of images that is read row by row; it holds no pixels, so it is small enough to send to other processes."""

    @property
    def parts(self) -> list[int]:
        """Return the number of images in each part; images of one part are best read together."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read some rows, in rising order: uint8 [n,C,H,W]; raises RaydreamError where one cannot be read."""


@dataclass(frozen=True)
class Shards:
    """The images of a run.

    Attributes:
        store: the store of its shards.
        batches: ids of the batches that belong to the set, in order.
        parts: number of images in each.
    """

    store: ShardStore
    batches: list[BatchId]
    parts: list[int]

    @classmethod
    def of(cls, store: ShardStore, batches: list[BatchId] | None = None) -> "Shards":
        """Open these batches, or all that are committed now; raises ShardError."""
        batches = store.committed() if batches is None else batches
        return cls(store, batches, [store.rows(batch) for batch in batches])

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [self.store.read(self.batches[part]).images[inner] for part, inner in by_part(self.parts, rows)]
        )


@dataclass(frozen=True)
class Images:
    """The images that are chosen of a source.

    Attributes:
        rows: the chosen rows, int64, rising.
    """

    source: Source
    rows: np.ndarray

    @classmethod
    def of(cls, source: Source, share: float = 1.0, seed: int = 0) -> "Images":
        """Draw a share in (0, 1] of the images, at least one, by a seed; all of them by default."""
        images = sum(source.parts)
        random = np.random.default_rng(derive_seed(seed, "share of images"))
        chosen = random.permutation(images)[: max(1, round(share * images))]
        return cls(source, np.sort(chosen))

    def __len__(self) -> int:
        return len(self.rows)

    def pieces(self) -> list[np.ndarray]:
        """Yield the rows, grouped by the source's parts."""
        ends = np.cumsum(self.source.parts)
        pieces = np.split(self.rows, np.searchsorted(self.rows, ends[:-1]))
        return [piece for piece in pieces if len(piece)]


def by_part(parts: list[int], rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Split rising rows by part: yield each part's index, and the rows within it."""
    ends = np.cumsum(parts)
    of_part = np.searchsorted(ends, rows, side="right")
    for part in np.unique(of_part):
        yield int(part), rows[of_part == part] - (ends[part] - parts[part])


def evenly_spread(values: Sequence[Value], most: int) -> list[Value]:
    """Return at most `most` (>= 2) of the values, evenly spread over their order, with the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[index] for index in np.linspace(0, len(values) - 1, most).round().astype(int)]
