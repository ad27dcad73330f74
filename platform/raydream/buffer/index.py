"""The buffer's index: the image batches held, in the order of their ids, and the handle of each."""

import bisect
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raydream.store.records import BatchId


@dataclass(frozen=True)
class Draw:
    """The images of some distillation steps, as batches and rows, never as pixels.

    Attributes:
        ids: int64 [b,2], (round, index) of the batches that are drawn from; plain numbers, as they travel faster.
        picks: per step, int64 [n,2]: (index into `batches`, row in that batch), in the order drawn.
    """

    ids: np.ndarray
    picks: list[np.ndarray] = field(default_factory=list)

    @property
    def batches(self) -> list[BatchId]:
        """Return the batches that are drawn from."""
        return [BatchId(*pair) for pair in self.ids.tolist()]

    def part(self, rank: int, workers: int) -> "Draw":
        """Return one worker's part: every `workers`-th image, beginning with the `rank`-th."""
        return Draw(self.ids, [pick[rank::workers] for pick in self.picks])


def gather(arrays: list[np.ndarray], picks: np.ndarray) -> np.ndarray:
    """Return the images [n,C,H,W] at `picks`, int64 [n,2]: (which array, which row)."""
    rows = [arrays[which][row] for which, row in picks.tolist()]
    return np.concatenate(rows).reshape(len(rows), *rows[0].shape)


class BufferIndex:
    """An index of image batches by id. All have the same number of images, so positions are found by division.

    Args:
        batch_images: images in each batch.
        most_handles: number of handles kept; beyond it the oldest is dropped, and its shard is read instead.
    """

    def __init__(self, batch_images: int, most_handles: int) -> None:
        self._batch_images, self._most_handles = batch_images, most_handles
        self._ids: list[BatchId] = []
        self._known: set[BatchId] = set()
        self._handles: dict[BatchId, Any] = {}

    def insert(self, batch: BatchId, handle: Any = None) -> bool:
        """Add a batch; returns True if it is new. A batch that is held already only gets a missing handle."""
        new = batch not in self._known
        if new:
            bisect.insort(self._ids, batch)
            self._known.add(batch)
        if handle is not None:
            self._handles.setdefault(batch, handle)
        if len(self._handles) > self._most_handles:
            del self._handles[next(iter(self._handles))]
        return new

    def count(self, up_to_round: int | None = None) -> int:
        """Return the number of batches held, of all rounds or of those up to one."""
        if up_to_round is None:
            return len(self._ids)
        return bisect.bisect_left(self._ids, BatchId(up_to_round + 1, 0))

    def handles(self, batches: list[BatchId]) -> list[Any]:
        """Return the handle of each batch, or None if it was dropped or never known: read its shard."""
        return [self._handles.get(batch) for batch in batches]

    def locate(self, positions: list[np.ndarray]) -> Draw:
        """Turn positions among all held images into batches and rows.

        Args:
            positions: per step, int64 [n], each in [0, count * batch_images).
        """
        split = [np.divmod(step, self._batch_images) for step in positions]
        used, compact = np.unique(np.concatenate([which for which, _ in split]), return_inverse=True)
        found = [self._ids[which] for which in used]
        draw = Draw(np.array([(batch.round, batch.index) for batch in found], np.int64).reshape(-1, 2))
        ends = np.cumsum([len(step) for step in positions])[:-1]
        for which, (_, row) in zip(np.split(compact, ends), split, strict=True):
            draw.picks.append(np.stack([which, row], axis=1))
        return draw
