"""Calibration images in the forms of other quantization tools: ONNX Runtime, torchao's PT2E, OpenVINO's NNCF."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raydream.errors import InputError
from raydream.store.atomic import write_atomically


class CalibrationImages:
    """Batches of images, normalized as a network's input, in the forms that quantizers expect.

    Iterating gives float32 tensors [N,C,H,W], for torchao's PT2E and `nncf.Dataset`. `get_next` and `rewind` make it a
    CalibrationDataReader of ONNX Runtime. `save` writes the batches as .npy files.

    Args:
        images: uint8 [N,C,H,W], N >= 1.
        mean, std: one number per channel, of pixel values in [0, 1]; a network takes (pixels - mean) / std.
        batch_size: images in a batch, >= 1; the last batch has the remainder.
        input_name: name of the ONNX network's input.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(
        self,
        images: np.ndarray,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int = 32,
        input_name: str = "images",
    ) -> None:
        for field, values in (("mean", mean), ("std", std)):
            if len(values) != images.shape[1]:
                allowed = f"{images.shape[1]} numbers, one per channel of the images"
                raise InputError(field, list(values), allowed, "give one value for each channel")
        if min(std) <= 0:
            raise InputError("std", list(std), "> 0", "name what the network was trained with")
        if batch_size < 1:
            raise InputError("batch_size", batch_size, "1 or more", "name how many images make a batch")
        self._images, self._batch_size, self._input_name = images, batch_size, input_name
        self._mean, self._std = (np.array(each, np.float32).reshape(-1, 1, 1) for each in (mean, std))
        self._at = 0

    def __len__(self) -> int:
        return -(-len(self._images) // self._batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.from_numpy(self._batch(index)) for index in range(len(self)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch by the input's name, or None after the last, as ONNX Runtime expects."""
        if self._at == len(self):
            return None
        self._at += 1
        return {self._input_name: self._batch(self._at - 1)}

    def rewind(self) -> None:
        """Start again with the first batch."""
        self._at = 0

    def save(self, folder: str | Path) -> list[Path]:
        """Write each batch as float32 [N,C,H,W] into `folder`/00000.npy and so on; returns the paths.

        Raises:
            InputError: the folder is not empty.
            OSError: the files cannot be written.
        """
        place = Path(folder)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InputError("folder", str(folder), "a folder that is new or empty", "name another one")
        place.mkdir(parents=True, exist_ok=True)
        paths = [place / f"{index:05d}.npy" for index in range(len(self))]
        for path, batch in zip(paths, self, strict=True):
            write_atomically(path, lambda temporary, batch=batch: _save(temporary, batch.numpy()))  # type: ignore[misc]
        return paths

    def _batch(self, index: int) -> np.ndarray:
        first = index * self._batch_size
        pixels = self._images[first : first + self._batch_size].astype(np.float32)
        batch: np.ndarray = (pixels / np.float32(255.0) - self._mean) / self._std
        return batch


def _save(path: Path, batch: np.ndarray) -> None:
    with path.open("wb") as file:  # by its name, numpy would append another ending
        np.save(file, batch)
