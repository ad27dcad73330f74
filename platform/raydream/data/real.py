"""Loads the configuration's real data, and checks them against the network."""

from functools import partial

import numpy as np

from raydream.config import DataConfig, TeacherConfig
from raydream.data.digits import load_digits
from raydream.data.files import LabeledSource, NamedPlace, Shape, open_files, resized
from raydream.data.splits import Dataset, Split
from raydream.data.torchvision_sets import TorchvisionImages, check_name
from raydream.errors import InputError
from raydream.seeds import derive_seed
from raydream.store.downloads import home


def load_data(data: DataConfig, network: TeacherConfig, classes: int | None = None) -> Dataset | None:
    """Load a data set for a network; None for "none".

    Args:
        classes: number of classes of its labels; None: the network's.

    Reading a split raises InputError where it is missing, unreadable, empty, or does not fit the network.

    Raises:
        InputError: the data set does not exist.
    """
    if data.name == "none":
        return None
    shape, count = network.input_shape, network.classes if classes is None else classes
    if data.name == "digits":
        return Dataset(*(partial(_digits, data, shape, count, split) for split in ("train", "validation", "test")))
    if data.torchvision:
        check_name(data.torchvision, data.download)
    return Dataset(*(partial(_read, data, shape, count, split) for split in ("train", "validation", "test")))


def check_data(data: DataConfig, network: TeacherConfig, train: bool = False) -> Dataset | None:
    """Load a data set and read the splits that are needed: to measure on, or to train on as well.

    Raises:
        InputError: see `load_data`.
    """
    real = load_data(data, network)
    if real is not None:
        _ = (real.validation, real.test, *([real.train] if train else []))
    return real


def _digits(data: DataConfig, shape: Shape, classes: int, name: str) -> Split:
    split: Split = getattr(load_digits(), name)
    if data.classes:
        rows = _named(data, classes, split.labels, name)
        split = Split(split.images[rows], split.labels[rows])
    return _fitting(data, shape, classes, split, name)


def _read(data: DataConfig, shape: Shape, classes: int, split: str) -> Split:
    """Read a split of files; the validation split may be a share of another one, which then lacks it."""
    of = data.validation_of if split == "validation" and not data.has_own_validation else split
    source = _source(data, shape, of)
    rows, labels = np.arange(sum(source.parts)), source.labels()
    if not data.has_own_validation and of == data.validation_of:
        # Fixed, so that all runs choose by the same images.
        order = np.random.default_rng(derive_seed(0, "validation split")).permutation(len(rows))
        taken = max(1, round(data.validation_share * len(rows)))
        rows = np.sort(order[:taken] if split == "validation" else order[taken:])
    if not len(rows):
        raise InputError(
            f"data.{of}", getattr(data, of), "a set with more images", f"none are left for the {split} split"
        )
    if data.classes:
        rows = rows[_named(data, classes, labels[rows], split)]  # no others are decoded
    return _fitting(data, shape, classes, Split(source.read(rows), labels[rows]), of)


def _source(data: DataConfig, shape: Shape, split: str) -> LabeledSource:
    if data.torchvision:
        place = NamedPlace("data.folder", data.folder or str(home() / "data"), data.resize)
        return TorchvisionImages(place, shape, data.torchvision, train=split == "train", download=data.download)
    where = getattr(data, split)
    if where is None:
        allowed = "a file or a folder of labeled images, where a teacher is trained"
        raise InputError(f"data.{split}", None, allowed, "name one, or the weights of a teacher that is trained")
    return open_files(where, f"data.{split}", shape, data.resize)


def _fitting(data: DataConfig, shape: Shape, classes: int, split: Split, name: str) -> Split:
    field, value = ("data.name", data.name) if data.name != "files" else (f"data.{name}", getattr(data, name))
    if data.resize:
        split = Split(resized(split.images, shape), split.labels)
    if split.images.shape[1:] != shape:
        allowed = f"none, or a data set of images {shape}, as teacher.input_shape says"
        raise InputError(field, value, allowed, f"its images are {split.images.shape[1:]}")
    if data.classes:
        order = np.argsort(data.classes)
        places = order[np.searchsorted(np.array(data.classes)[order], split.labels)]
        return Split(split.images, places.astype(np.int64))
    least, most = int(split.labels.min()), int(split.labels.max())
    if least < 0 or most >= classes:
        allowed = f"labeled by classes from 0 to {classes - 1}, as teacher.classes says"
        raise InputError(field, value, allowed, f"its labels go from {least} to {most}")
    return split


def _named(data: DataConfig, classes: int, labels: np.ndarray, split: str) -> np.ndarray:
    """Select the rows of the named classes; a training split must have some of each."""
    if len(data.classes) != classes:
        allowed = f"{classes} classes, as teacher.classes says"
        raise InputError("data.classes", list(data.classes), allowed, "name one for each output of the network")
    missing = sorted({*data.classes} - {*np.unique(labels).tolist()})
    if missing and (split == "train" or len(missing) == len(data.classes)):
        allowed = f"classes of which there are images in the {split} split"
        raise InputError("data.classes", list(data.classes), allowed, f"there is none of class {missing[0]}")
    return np.flatnonzero(np.isin(labels, data.classes))
