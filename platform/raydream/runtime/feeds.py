"""Feeds of a finished set of images to a student's Train workers: from memory, or streamed from files."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import ray
import torch
from torch import Tensor

from raydream.buffer.sampler import permuted_epoch
from raydream.data.sources import Images
from raydream.errors import InputError
from raydream.schedule import Epochs

MEMORY_SHARE = 0.5
"""share of the smallest node's object store that a set may fill"""


class Feed(Protocol):
    """Source of the images that a student's workers learn from."""

    name: str
    streams: bool
    """whether Ray Data streams the images"""
    read_cpus: float
    """CPUs that reading needs beside the workers"""

    def datasets(self, first_epoch: int) -> dict[str, Any]:
        """Return Ray Data's datasets for a Train job that resumes at an epoch; called in the job's parent process."""

    def epoch(self, epoch: int, rank: int, workers: int) -> Iterator[Tensor]:
        """Yield uint8 [n,C,H,W] for each step of an epoch: the worker's part of it, disjoint from the others'."""


@dataclass(frozen=True)
class MemoryFeed:
    """Feeds images from the object store, in an order per epoch that follows from the seed.

    Attributes:
        images: a list with the reference to uint8 [N,C,H,W].
        epochs: passes over the images.
        seed: of the run.
    """

    images: list[ray.ObjectRef]
    epochs: Epochs
    seed: int
    name = "memory"
    streams = False
    read_cpus = 0.0

    @classmethod
    def fill(cls, chosen: Images, shape: tuple[int, ...], epochs: Epochs, seed: int) -> "MemoryFeed":
        """Read all images into the object store; raises RaydreamError if one cannot be read."""
        images, filled = np.empty((epochs.images, *shape), np.uint8), 0
        for rows in chosen.pieces():
            images[filled : filled + len(rows)] = chosen.source.read(rows)
            filled += len(rows)
        return cls([ray.put(images)], epochs, seed)

    def datasets(self, first_epoch: int) -> dict[str, Any]:
        return {}

    def epoch(self, epoch: int, rank: int, workers: int) -> Iterator[Tensor]:
        images = ray.get(self.images[0])
        for rows in permuted_epoch(self.seed, epoch, self.epochs.images, self.epochs.steps):
            yield torch.from_numpy(images[np.array_split(rows, workers)[rank]])


def choose_feed(asked: str, images_bytes: int, object_store: int) -> str:
    """Decide whether images are held in memory or streamed.

    Args:
        asked: memory, stream, or auto: memory if they fit into `MEMORY_SHARE` of the object store.
        images_bytes: bytes of all images.
        object_store: bytes of the smallest node's.

    Raises:
        InputError: memory is requested, and the whole object store could not hold them.
    """
    if asked == "memory" and images_bytes > object_store:
        allowed = f"stream for {images_bytes / 2**20:.0f} MiB of images"
        remedy = f"the smallest object store holds {object_store / 2**20:.0f} MiB: leave the option out"
        raise InputError("feed", asked, allowed, remedy)
    if asked == "auto":
        return "memory" if images_bytes <= MEMORY_SHARE * object_store else "stream"
    return asked


def make_feed(asked: str, images: Images, shape: tuple[int, ...], epochs: Epochs, seed: int, object_store: int) -> Feed:
    """Make the feed of a set of images that `choose_feed` decides on; raises as it does, and as `MemoryFeed.fill`.

    Args:
        shape: [C,H,W] of the images.
        object_store: bytes of the smallest node's.
    """
    name = choose_feed(asked, epochs.images * int(np.prod(shape)), object_store)
    if name == "memory":
        return MemoryFeed.fill(images, shape, epochs, seed)
    from raydream.runtime.streaming import StreamFeed  # here, as it takes a second to import

    return StreamFeed(images, shape, epochs, seed, object_store)
