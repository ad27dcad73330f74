"""Labeled real images: what to learn from, what to choose by, and what to report on."""

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
    """Three splits without an image in common, each of which is read when it is first asked for.

    Attributes:
        read_train, read_validation, read_test: give the split; raise InputError where it cannot be had.
    """

    read_train: Callable[[], Split]
    read_validation: Callable[[], Split]
    read_test: Callable[[], Split]

    @cached_property
    def train(self) -> Split:
        """To learn from."""
        return self.read_train()

    @cached_property
    def validation(self) -> Split:
        """To choose by."""
        return self.read_validation()

    @cached_property
    def test(self) -> Split:
        """To report on, and for nothing else."""
        return self.read_test()
