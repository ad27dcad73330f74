"""Finished sets of images, wherever they come from, and what a student is to see of one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from raydream.seeds import derive_seed
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore

Value = TypeVar("Value")


class Source(Protocol):
    """A set of images that is read row by row; small enough to be sent to other processes, as it holds no pixels."""

    @property
    def parts(self) -> list[int]:
        """How many images lie together, part by part, and are best read together."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n,C,H,W] of some rows, which rise; raises RaydreamError where one cannot be read."""


@dataclass(frozen=True)
class Shards:
    """The images of a run.

    Attributes:
        store: of its shards.
        batches: ids of those that count, in order.
        parts: images of each.
    """

    store: ShardStore
    batches: list[BatchId]
    parts: list[int]

    @classmethod
    def of(cls, store: ShardStore, batches: list[BatchId] | None = None) -> "Shards":
        """These batches, or all that are committed now; raises ShardError."""
        batches = store.committed() if batches is None else batches
        return cls(store, batches, [store.rows(batch) for batch in batches])

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [self.store.read(self.batches[part]).images[inner] for part, inner in by_part(self.parts, rows)]
        )


@dataclass(frozen=True)
class Images:
    """What is chosen of a source.

    Attributes:
        rows: int64, rising.
    """

    source: Source
    rows: np.ndarray

    @classmethod
    def of(cls, source: Source, share: float = 1.0, seed: int = 0) -> "Images":
        """A share in (0, 1] of the images, at least one, drawn by a seed; all of them by default."""
        images = sum(source.parts)
        random = np.random.default_rng(derive_seed(seed, "share of images"))
        chosen = random.permutation(images)[: max(1, round(share * images))]
        return cls(source, np.sort(chosen))

    def __len__(self) -> int:
        return len(self.rows)

    def pieces(self) -> list[np.ndarray]:
        """The rows, those of each part of the source together."""
        ends = np.cumsum(self.source.parts)
        pieces = np.split(self.rows, np.searchsorted(self.rows, ends[:-1]))
        return [piece for piece in pieces if len(piece)]


def by_part(parts: list[int], rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rising rows of a whole, as the index of each part that has some of them, and their rows in it."""
    ends = np.cumsum(parts)
    of_part = np.searchsorted(ends, rows, side="right")
    for part in np.unique(of_part):
        yield int(part), rows[of_part == part] - (ends[part] - parts[part])


def evenly_spread(values: Sequence[Value], most: int) -> list[Value]:
    """At most `most` (>= 2) of the values, evenly spread over their order; the first and the last are always in."""
    if len(values) <= most:
        return list(values)
    return [values[index] for index in np.linspace(0, len(values) - 1, most).round().astype(int)]
