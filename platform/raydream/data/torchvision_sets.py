"""torchvision's data sets, read from a folder in which they are already: nothing is downloaded."""

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from raydream.data.files import Place, Shape, resized
from raydream.errors import InputError, first_line


@dataclass(frozen=True)
class TorchvisionImages:
    """One of torchvision's classification sets, by its name.

    Attributes:
        place: the folder, as torchvision asks for it.
        name: of the class in torchvision.datasets.
        train: which of its two splits.
    """

    place: Place
    shape: Shape
    name: str
    train: bool

    @property
    def parts(self) -> list[int]:
        return [len(self._set)]

    def read(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape), np.uint8)
        for index, row in enumerate(rows):
            pixels = np.asarray(self._set[int(row)][0])
            made = pixels.reshape(pixels.shape[0], pixels.shape[1], -1).transpose(2, 0, 1)
            if self.place.resize:
                made = resized(made[None], self.shape)[0]
            if made.shape != self.shape:
                raise self.place.refused(f"a data set of images {self.shape}", f"row {row} is {made.shape}")
            images[index] = made
        return images

    def labels(self) -> np.ndarray:
        for name in ("targets", "labels"):  # without decoding what is shown
            if hasattr(self._set, name):
                return np.asarray(getattr(self._set, name)).astype(np.int64)
        return np.array([self._set[row][1] for row in range(len(self._set))], np.int64)

    @cached_property
    def _set(self) -> Any:
        import torchvision

        kind = getattr(torchvision.datasets, self.name)
        splits = inspect.signature(kind).parameters
        which = {"train": self.train} if "train" in splits else {"split": "train" if self.train else "test"}
        try:
            return kind(self.place.where, **which, **({"download": False} if "download" in splits else {}))
        except Exception as error:  # each set has its own way of not being there
            allowed = f"a folder in which torchvision finds {self.name}"
            raise self.place.refused(allowed, f"it says: {first_line(error)}") from error


def check_name(name: str) -> None:
    """Raise InputError where torchvision has no data set of that name with a training and a test split."""
    import torchvision

    known = sorted(
        kind for kind in torchvision.datasets.__all__ if _has_two_splits(getattr(torchvision.datasets, kind))
    )
    if name not in known:
        allowed = f"torchvision: and one of {', '.join(known)}"
        raise InputError("data.name", f"torchvision:{name}", allowed, "or put the images into files, and name these")


def _has_two_splits(kind: Any) -> bool:
    asked = inspect.signature(kind).parameters
    return "root" in asked and ("train" in asked or "split" in asked)
