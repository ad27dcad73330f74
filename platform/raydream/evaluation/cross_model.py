"""Cross-model check: the share of images that other networks classify as their targets (Table 2 of the paper)."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raydream.store.records import ImageBatch
from raydream.teachers.teacher import Teacher


@torch.no_grad()
def target_shares(batches: Iterable[ImageBatch], verifier: Teacher, chunk: int = 250) -> np.ndarray:
    """Count the images of each class that a network classifies as their target.

    Args:
        batches: quantized images; resized (bilinear, antialiased) where the verifier wants another size.
        verifier: an independent network, on its device.

    Returns:
        int64 [K,2], number of hits and of images of each class.
    """
    counts = np.zeros((verifier.config.classes, 2), np.int64)
    for batch in batches:
        for first in range(0, len(batch), chunk):
            images = torch.from_numpy(batch.images[first : first + chunk])
            targets = batch.targets[first : first + chunk]
            named = verifier.logits(sized(images, verifier)).argmax(1).cpu().numpy()
            np.add.at(counts[:, 0], targets, named == targets)
            np.add.at(counts[:, 1], targets, 1)
    return counts


def sized(images: Tensor, verifier: Teacher) -> Tensor:
    """Resize uint8 images [N,C,H,W] (bilinear, antialiased) where a network takes another size."""
    size = verifier.config.input_shape[1:]
    if images.shape[2:] == size:
        return images
    return functional.interpolate(images, size, mode="bilinear", antialias=True)
