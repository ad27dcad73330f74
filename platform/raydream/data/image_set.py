"""The images of a run as a data set: for torch, and as a folder of PNG files."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from raydream.data.calibration import CalibrationImages
from raydream.data.sources import by_part, evenly_spread
from raydream.errors import InputError, ShardError, first_line
from raydream.store.atomic import TEMPORARY
from raydream.store.folders import Folder, folder_at
from raydream.store.records import BatchId, ImageBatch
from raydream.store.shards import ShardStore


class Batches(Protocol):
    """The interface from which a set's batches are read."""

    def committed(self) -> list[BatchId]: ...

    def rows(self, batch: BatchId) -> int: ...

    def read(self, batch: BatchId) -> ImageBatch: ...


class InMemory:
    """Batches in memory, read like those of a `ShardStore`."""

    def __init__(self, batches: Iterable[ImageBatch]) -> None:
        self._batches = {batch.id: batch for batch in batches}

    def committed(self) -> list[BatchId]:
        return sorted(self._batches)

    def rows(self, batch: BatchId) -> int:
        return len(self._batches[batch])

    def read(self, batch: BatchId) -> ImageBatch:
        return self._batches[batch]


class ImageSet(Dataset[tuple[Tensor, int]]):
    """All images of a run, in the order of their batches.

    An item is an image, uint8 [C,H,W] (float and normalized, say, after `transform`), and its target. A shard is read
    at the first access to one of its images, and kept.

    Args:
        path: path or URL of a run's folder, or of a folder of shards; or batches in memory.
        transform: applied to each image.

    Raises:
        InputError: there are no shards in it.
        ShardError: one of them cannot be read.
    """

    def __init__(
        self, path: str | Path | Folder | InMemory, transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self._store: Batches = path if isinstance(path, InMemory) else open_shards(path)
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
        """Yield all batches in order, read one at a time and not kept."""
        return (self._store.read(batch) for batch in self._ids)

    @property
    def images(self) -> np.ndarray:
        """Return all images: uint8 [N,C,H,W], pixel values 0 to 255; raises ShardError."""
        return np.concatenate([batch.images for batch in self.batches()])

    @property
    def targets(self) -> np.ndarray:
        """Return the target of each image: int64 [N], class indices in [0, K); raises ShardError."""
        return np.concatenate([batch.targets for batch in self.batches()])

    @property
    def teacher_logits(self) -> np.ndarray:
        """Return the teacher's logits for each stored image: float32 [N,K]; raises ShardError."""
        return np.concatenate([batch.teacher_logits for batch in self.batches()])

    def calibration(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        count: int = 512,
        batch_size: int = 32,
        input_name: str = "images",
    ) -> CalibrationImages:
        """Return images for quantization tools: for ONNX Runtime, for torchao and NNCF, and as files.

        Args:
            mean, std: one number per channel, of pixel values in [0, 1]; the network takes (pixels - mean) / std.
            count: number of images, evenly spread over the set; all of a smaller one.
            batch_size: images in a batch, >= 1.
            input_name: name of the ONNX network's input; "images" in the files that this project writes.

        Raises:
            InputError: a number is out of range, or mean and std do not have one number per channel.
            ShardError: an image cannot be read.
        """
        if count < 1:
            raise InputError("count", count, "1 or more", "name how many images calibrate")
        rows = np.array(evenly_spread(range(len(self)), count)) if count > 1 else np.zeros(1, np.int64)
        found = [
            self._store.read(self._ids[part]).images[inner]
            for part, inner in by_part([self._store.rows(batch) for batch in self._ids], rows)
        ]
        return CalibrationImages(np.concatenate(found), mean, std, batch_size, input_name)

    def save(self, path: str | Path) -> None:
        """Write the batches as shards into a folder, which jobs take as `--images`; existing ones stay.

        Raises:
            OSError: see `ShardStore.write`.
        """
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        store = ShardStore(place)
        for batch in self.batches():
            store.write(batch)

    def _batch(self, position: int) -> ImageBatch:
        if position not in self._batches:
            self._batches[position] = self._store.read(self._ids[position])
        return self._batches[position]


def open_shards(path: str | Path | Folder, field: str = "images") -> ShardStore:
    """Open the shards of a run folder, or of a folder of shards; raises InputError where there are none."""
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

    The folder appears under its name when it is complete; the remains of a killed export are replaced.

    Returns:
        the number of images.

    Raises:
        InputError: no images, or `to` is not new or empty.
        ShardError: the images have neither 1 nor 3 channels, which PNG files have.
    """
    images = ImageSet(path)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError("to", str(to), "a folder that is new or empty", "name another one")
    temporary = to.with_name(f".{to.name}{TEMPORARY}")
    shutil.rmtree(temporary, ignore_errors=True)
    for batch in images.batches():
        if batch.images.shape[1] not in (1, 3):
            raise ShardError(f"images of {batch.images.shape[1]} channels cannot be PNG files")
        for row, (image, target) in enumerate(zip(batch.images, batch.targets, strict=True)):
            folder = temporary / f"{target:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            Image.fromarray(pixels).save(folder / f"{batch.id}-{row:05d}.png")
    if to.exists():
        to.rmdir()
    temporary.replace(to)
    return len(images)
