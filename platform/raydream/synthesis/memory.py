"""Chunks: the number of images per pass through the networks, reduced whenever memory runs out."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from raydream.errors import SynthesisError, first_line
from raydream.memory import is_out_of_memory

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Chunks:
    """The number of images that are processed at once.

    Args:
        size: the initial number; None: all images of a batch.

    Attributes:
        size: the number that memory has allowed so far.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        self._notes: list[str] = []

    def fitting(self, work: Callable[[int], Result], count: int, device: torch.device) -> Result:
        """Do some work; if memory runs out, repeat it in chunks of half the size.

        Args:
            work: processes the given number of images at once, at most `count`.
            count: total number of images.
            device: the device that does the work.

        Raises:
            SynthesisError: a single image does not fit into memory.
        """
        while True:
            tried = min(self.size or count, count)
            try:
                return work(tried)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = first_line(error)
            # Outside of the handler: the error's stack frames hold on to the tensors that were too large.
            if tried == 1:
                remedy = "choose a larger device or smaller images"
                raise SynthesisError(f"out of memory at a single image: {remedy} ({said})")
            self.size = (tried + 1) // 2
            self.note(f"out of memory with {tried} images at once: going on with {self.size}")
            if device.type != "cpu":
                torch.get_device_module(device).empty_cache()

    def note(self, text: str) -> None:
        """Keep a sentence about a deviation."""
        log.warning("%s", text)
        self._notes.append(text)

    def take_notes(self) -> tuple[str, ...]:
        """Return the deviations since the last call, one sentence each."""
        notes, self._notes = tuple(self._notes), []
        return notes
