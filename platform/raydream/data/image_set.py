"""The images of a run as a data set: for torch, and as a folder of PNG files."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from raydream.errors import InputError, ShardError, first_line
from raydream.folders import Folder, folder_at
from raydream.records import ImageBatch
from raydream.shards import ShardStore
from raydream.storage import ASIDE


class ImageSet(Dataset[tuple[Tensor, int]]):
    """All images of a run, in the order of their batches.

    An item is an image, uint8 [C,H,W] (float and normalised, say, after `transform`), and its target. Shards are read
    when one of their images is first asked for, and kept.

    Args:
        path: or URL, of the folder of a run, or of shards.
        transform: applied to each image.

    Raises:
        InputError: there are no shards in it.
        ShardError: one of them cannot be read.
    """

    def __init__(self, path: str | Path | Folder, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self._store = open_shards(path)
        self._transform = transform
        self._ids = self._store.committed()
        counts = [self._store.rows(batch) for batch in self._ids]
        self._ends = np.cumsum(counts)
        self._batches: dict[int, ImageBatch] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)} images")
        position = int(np.searchsorted(self._ends, index, side="right"))
        batch = self._batch(position)
        row = index - int(self._ends[position]) + len(batch)
        image = torch.from_numpy(batch.images[row])
        return (self._transform(image) if self._transform else image), int(batch.targets[row])

    def batches(self) -> Iterator[ImageBatch]:
        """All batches in order, read one at a time and not kept."""
        return (self._store.read(batch) for batch in self._ids)

    def _batch(self, position: int) -> ImageBatch:
        if position not in self._batches:
            self._batches[position] = self._store.read(self._ids[position])
        return self._batches[position]


def open_shards(path: str | Path | Folder, field: str = "images") -> ShardStore:
    """The shards of a run folder, or of a folder of shards; raises InputError where there are none."""
    given = folder_at(path, field)
    try:
        store = ShardStore(given / "images" if "images" in given.folders() else given)
        if store.committed():
            return store
    except OSError as error:
        allowed = "a folder that can be read"
        raise InputError(field, str(path), allowed, f"reading it failed: {first_line(error)}") from error
    raise InputError(field, str(path), "the folder of a run that has images", "there are none in it")


def export_folder(path: str | Path | Folder, to: Path) -> int:
    """Write a run's images as `to`/<target>/<batch>-<row>.png, as torchvision's ImageFolder reads them.

    The folder appears under its name when it is complete; what a killed export left behind is begun anew.

    Returns:
        the number of images.

    Raises:
        InputError: no images, or `to` is not new or empty.
        ShardError: the images have neither 1 nor 3 channels, which PNG files have.
    """
    images = ImageSet(path)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError("to", str(to), "a folder that is new or empty", "name another one")
    aside = to.with_name(f".{to.name}{ASIDE}")
    shutil.rmtree(aside, ignore_errors=True)
    for batch in images.batches():
        if batch.images.shape[1] not in (1, 3):
            raise ShardError(f"images of {batch.images.shape[1]} channels cannot be PNG files")
        for row, (image, target) in enumerate(zip(batch.images, batch.targets, strict=True)):
            folder = aside / f"{target:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            Image.fromarray(pixels).save(folder / f"{batch.id}-{row:05d}.png")
    if to.exists():
        to.rmdir()
    aside.replace(to)
    return len(images)
