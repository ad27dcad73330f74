"""Labeled real images in splits: for training, for validation, and for the final test."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Split:
    """Labeled real images.

    Attributes:
        images: uint8 [N,C,H,W].
        labels: int64 [N].
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Three splits without an image in common, each of which is read at its first use.

    Attributes:
        read_train, read_validation, read_test: return the split; raise InputError where it is unavailable.
    """

    read_train: Callable[[], Split]
    read_validation: Callable[[], Split]
    read_test: Callable[[], Split]

    @cached_property
    def train(self) -> Split:
        """The split for training."""
        return self.read_train()

    @cached_property
    def validation(self) -> Split:
        """The split for validation: to choose by."""
        return self.read_validation()

    @cached_property
    def test(self) -> Split:
        """The split for the final test: to report on, and for nothing else."""
        return self.read_test()
