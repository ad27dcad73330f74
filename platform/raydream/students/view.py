"""The view of images from which a student learns."""

import torch
from torch import Tensor

from raydream.augmentation import cutout, mixup, random_affine, random_flip, random_shift, random_tone
from raydream.config import ViewConfig
from raydream.teachers.normalization import Normalization


class StudentView:
    """The view of images that teacher and student both see in one distillation step.

    Images are augmented on the canvas (see `Normalization.canvas`), so that brightness means the same for all teachers.

    Args:
        config: the augmentations and their strengths.
        normalization: the teacher's normalization.
    """

    def __init__(self, config: ViewConfig, normalization: Normalization) -> None:
        self._config, self._canvas = config, normalization.canvas()
        self._black, self._from_canvas = self._canvas.valid_range()[0], normalization.from_canvas()

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Draw a view of uint8 images [N,C,H,W] as the networks see it, float32 [N,C,H,W]."""
        config = self._config
        x = random_shift(self._canvas(images), config.shift, self._black, random)
        if config.flip:
            x = random_flip(x, random)
        x = random_affine(x, config.zoom, config.rotation, random)
        x = random_tone(x, config.brightness, config.contrast, random)
        x = cutout(x, config.cutout, random)
        if config.mixup:
            x = mixup(x, config.mixup, random)
        return x * self._from_canvas
