"""The supervised step of a teacher: a view of labeled images, cross-entropy, and the schedule of the optimizer."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.augmentation import random_affine, random_flip, random_shift
from raydream.config import TrainingConfig
from raydream.students.distillation import cosine
from raydream.students.learning import Learning
from raydream.teachers.normalization import Normalization

RISE = 0.3
"""share of the steps over which a one-cycle schedule rises"""
START, END = 25.0, 1e4
"""of a one-cycle schedule: peak to first learning rate, and first to last"""
MOMENTA = 0.85, 0.95
"""of a one-cycle schedule: momentum at the peak, and at both ends"""


@dataclass(frozen=True)
class LabeledBatch:
    """The real images of one step.

    Attributes:
        images: uint8 [N,C,H,W].
        labels: int64 [N], each in [0, K).
        random: the source of their random view.
    """

    images: Tensor
    labels: Tensor
    random: torch.Generator


class SupervisedLearning(Learning[LabeledBatch]):
    """A teacher that learns labels, with its optimizer.

    Args:
        network: on its training device and in its training wrapper (DDP, say).
        config: the recipe.
        normalization: of the network's input, on its device.
        weights: of the classes in the loss, float32 [K] on the device; None: all alike.
        total_steps: number of steps of the schedule.
        rank: this worker's rank.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainingConfig,
        normalization: Normalization,
        weights: Tensor | None,
        total_steps: int,
        rank: int = 0,
    ) -> None:
        device = normalization.mean.device
        super().__init__(network, _optimizer(network, config), config, device, config.seed, rank)
        self._config, self._total_steps, self._weights = config, total_steps, weights
        self._normalization, self._black = normalization, normalization.valid_range()[0]

    def step(self, batch: LabeledBatch, step: int) -> tuple[Tensor, Tensor]:
        """Make one update; returns the loss, and the share of views whose class is named right; scalars."""
        view = self._view(batch).contiguous(memory_format=torch.channels_last)
        loss, logits = self.update(view, step, lambda logits: self._loss(logits, batch.labels))
        return loss, (logits.argmax(1) == batch.labels).float().mean()

    def learning_rate(self, step: int) -> float:
        """Return the learning rate at a step."""
        config = self._config
        if config.decay == "one_cycle":
            return one_cycle(config.learning_rate, step, self._total_steps)[0]
        if step < config.warm_up:
            return config.learning_rate * (step + 1) / config.warm_up
        return config.learning_rate * cosine(step, config.warm_up, self._total_steps)

    def optimizer_settings(self, step: int) -> dict[str, Any]:
        """Return the learning rate at a step, and the momentum where a one-cycle schedule changes it."""
        settings = super().optimizer_settings(step)
        if self._config.decay != "one_cycle":
            return settings
        momentum = one_cycle(self._config.learning_rate, step, self._total_steps)[1]
        return settings | ({"momentum": momentum} if self._config.optimizer == "sgd" else {"betas": (momentum, 0.999)})

    def _view(self, batch: LabeledBatch) -> Tensor:
        # Not on the canvas: nothing here is in its units, and the input is that of version 0.1 to the bit.
        config = self._config
        x = random_shift(self._normalization(batch.images), config.shift, self._black, batch.random)
        if config.flip:
            x = random_flip(x, batch.random)
        return random_affine(x, config.zoom, 0.0, batch.random)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self._config.label_smoothing
        return functional.cross_entropy(logits, labels, self._weights, label_smoothing=smoothing)


def class_weights(config: TrainingConfig, labels: np.ndarray, classes: int) -> Tensor | None:
    """Return the weight of each class in the loss, float32 [K]; None: all alike.

    Balanced weights are N / (K n_k) for n_k of N images, so that the weight of an average image is 1; a class without
    images, which the loss never meets, counts as one with a single image.
    """
    if config.class_weights == "balanced":
        counts = np.bincount(labels, minlength=classes).clip(min=1)
        return torch.from_numpy(len(labels) / (classes * counts)).float()
    return torch.tensor(config.class_weights) if config.class_weights else None


def one_cycle(peak: float, step: int, total_steps: int) -> tuple[float, float]:
    """Return learning rate and momentum at a step of the one-cycle schedule of Smith and Topin (2018).

    Half a cosine each: up to the peak over `RISE` of the steps, and down; momentum moves the other way. These are the
    numbers of torch's OneCycleLR, to the bit, which holds its state in the optimizer rather than in the step.
    """
    top, low, high = RISE * total_steps - 1, *MOMENTA
    first = peak / START
    if step <= top:
        share, rates, momenta = step / top, (first, peak), (high, low)
    else:
        share, rates, momenta = (step - top) / (total_steps - 1 - top), (peak, first / END), (low, high)
    return _between(*rates, share), _between(*momenta, share)


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1.0)


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=decay, fused=True)
    # Not the fused one: teachers of version 0.1 are trained again to the same bits.
    return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
