"""A set of images streamed by Ray Data from its files to the workers of a student.

Separate from `feeds.py`, as Ray Data and Ray Train take a second to import and images from memory need neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import ray.data
import ray.train
import torch
from ray.data.block import BlockAccessor, BlockMetadata
from torch import Tensor

from raydream.data.sources import Images, Source
from raydream.runtime.placement import READ_CPUS
from raydream.schedule import Epochs, even_sizes
from raydream.seeds import derive_seed

SHUFFLE_BYTES = 128 * 2**20
"""bytes of streamed images that a worker keeps to draw from"""
BLOCK_BYTES = 32 * 2**20
"""bytes of images that one task reads, and that travel together"""
STREAMED = "images"


@dataclass(frozen=True)
class StreamFeed:
    """Streams images by Ray Data, which reads the files again, in another order, in each epoch.

    Workers draw from the images that have arrived so far. All workers get the same number of images: if these cannot be
    divided evenly, an epoch omits fewer images than there are workers. The order depends on which task is the quickest,
    and is not reproducible.

    Attributes:
        images: the set to stream.
        shape: [C,H,W] of the images.
        epochs: passes over the images.
        seed: of the run.
        object_store: bytes of the smallest node's, which holds the images in flight.
    """

    images: Images
    shape: tuple[int, ...]
    epochs: Epochs
    seed: int
    object_store: int
    name = "stream"
    streams = True
    read_cpus = READ_CPUS

    @property
    def block_bytes(self) -> int:
        """Return the bytes of images that travel together; many blocks are in flight at once."""
        return min(BLOCK_BYTES, self.object_store // 32)

    def datasets(self, first_epoch: int) -> dict[str, Any]:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = self.block_bytes
        pieces = _Pieces(self, derive_seed(self.seed, "shard order", first_epoch))
        return {STREAMED: ray.data.read_datasource(pieces, num_cpus=READ_CPUS)}

    def epoch(self, epoch: int, rank: int, workers: int) -> Iterator[Tensor]:
        sizes = even_sizes(self.epochs.images // workers, self.epochs.steps)
        # The images to draw from lie in the object store, where the next blocks need room as well.
        shuffled = min(SHUFFLE_BYTES, self.object_store // (8 * workers)) // int(np.prod(self.shape))
        batches = ray.train.get_dataset_shard(STREAMED).iter_torch_batches(
            batch_size=max(sizes),
            local_shuffle_buffer_size=max(max(sizes), shuffled),
            local_shuffle_seed=derive_seed(self.seed, "stream order", epoch, rank) % 2**32,
        )
        yield from resized((batch["image"] for batch in batches), sizes)


class _Pieces(ray.data.Datasource):  # type: ignore[misc]
    """Reads the shards of a feed, or other groups of images, in a new order each time.

    It uses raydream's reader, which detects damage: Ray's reader of Parquet files cannot verify checksums, and passes
    on pixels with flipped bits.
    """

    def __init__(self, feed: StreamFeed, seed: int) -> None:
        super().__init__()
        self._feed, self._random = feed, np.random.default_rng(seed)

    def estimate_inmemory_data_size(self) -> int:
        return self._feed.epochs.images * int(np.prod(self._feed.shape))

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ray.data.ReadTask]:
        pieces = self._feed.images.pieces()
        tasks = max(1, min(len(pieces), self.estimate_inmemory_data_size() // self._feed.block_bytes))
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
        source = [ray.put(self._feed.images.source)]  # once, as a million file names take much memory
        return [
            ray.data.ReadTask(partial(_read, source, [pieces[index] for index in indices]), unknown)
            for indices in np.array_split(self._random.permutation(len(pieces)), tasks)
        ]


def _read(where: list[ray.ObjectRef], pieces: list[np.ndarray]) -> Iterator[Any]:
    source: Source = ray.get(where[0])
    for rows in pieces:
        yield BlockAccessor.batch_to_block({"image": source.read(rows)})


def resized(batches: Iterator[Tensor], sizes: list[int]) -> Iterator[Tensor]:
    """Regroup images, in their order, into batches of these sizes; raises ValueError if their number differs."""
    held: list[Tensor] = []
    for size in sizes:
        while sum(map(len, held)) < size:
            if (more := next(batches, None)) is None:
                raise ValueError(f"{sum(sizes)} images were expected, and there are fewer")
            held.append(more)
        joined = held[0] if len(held) == 1 else torch.cat(held)
        yield joined[:size]
        held = [joined[size:]] if len(joined) > size else []
    if held or next(batches, None) is not None:
        raise ValueError(f"{sum(sizes)} images were expected, and there are more")
