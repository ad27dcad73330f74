"""torchvision's data sets, read from a folder, into which torchvision downloads them only where the user says so."""

import fcntl
import inspect
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from raydream.data.files import NamedPlace, Shape, resized
from raydream.errors import InputError, first_line

LOCK = ".download.lock"
"""lock file in a folder, held by a process while torchvision may download into it"""


@dataclass(frozen=True)
class TorchvisionImages:
    """One of torchvision's classification sets, by its name.

    Attributes:
        place: the folder, as torchvision expects it.
        name: name of the class in torchvision.datasets.
        train: whether the training split; else the test split.
        download: whether torchvision downloads what is missing.
    """

    place: NamedPlace
    shape: Shape
    name: str
    train: bool
    download: bool = False

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
            if self.download:
                return _downloaded(kind, Path(self.place.where), which)
            return kind(self.place.where, **which, **({"download": False} if "download" in splits else {}))
        except Exception as error:  # each set has its own way of not being there
            allowed = f"a folder in which torchvision finds {self.name}"
            remedy = f"it says: {first_line(error)}"
            if self.download:
                allowed = f"a folder into which torchvision can download {self.name}"
                remedy = f"{remedy}: get its files on another machine and put them there"
            raise self.place.refused(allowed, remedy) from error


def _downloaded(kind: Any, folder: Path, which: dict[str, Any]) -> Any:
    """Load a data set, and download it where missing, one process at a time: torchvision writes files in place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:  # nothing can be downloaded into a folder that cannot be written, but it may hold the data set
        return kind(str(folder), **which, download=False)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return kind(str(folder), **which, download=True)
    finally:
        os.close(lock)


def check_name(name: str, download: bool) -> None:
    """Raise InputError where torchvision has no data set of that name with a training and a test split.

    Args:
        download: whether torchvision must be able to download it.
    """
    import torchvision

    known = sorted(
        kind for kind in torchvision.datasets.__all__ if _has_two_splits(getattr(torchvision.datasets, kind))
    )
    if name not in known:
        allowed = f"torchvision: and one of {', '.join(known)}"
        raise InputError("data.name", f"torchvision:{name}", allowed, "or put the images into files, and name these")
    if download and "download" not in inspect.signature(getattr(torchvision.datasets, name)).parameters:
        remedy = "get its files from its owners, put them into data.folder and name that"
        raise InputError("data.download", True, f"false for {name}, which torchvision does not download", remedy)


def _has_two_splits(kind: Any) -> bool:
    asked = inspect.signature(kind).parameters
    return "root" in asked and ("train" in asked or "split" in asked)
