"""The record of one attempt at a batch, update by update."""

import math

import torch
from torch import Tensor

from raydream.errors import ShardError
from raydream.synthesis.checkpoint import Checkpoint, Record
from raydream.synthesis.gradient import Evaluation
from raydream.synthesis.request import Request, Synthesis

CURVE_POINTS = 20


class Recorded:
    """Keeps the losses of one attempt. Reading a value waits for the device, so it is done at few updates."""

    def __init__(self, updates: int) -> None:
        self.update = 0
        self._last, self._every = updates - 1, max(1, updates // CURVE_POINTS)
        self._curve: dict[str, list[tuple[int, float]]] = {}
        self._distances: list[float] = []

    @property
    def share(self) -> float:
        """Return the share of updates that are done, in [0, 1]."""
        return (self.update + 1) / (self._last + 1)

    def is_due(self) -> bool:
        """Return whether this update's values are recorded."""
        return self.update == self._last or self.update % self._every == 0

    def record(self, evaluation: Evaluation, x: Tensor) -> bool:
        """Record the values of an update; returns False where they are no longer finite."""
        if not math.isfinite(evaluation.total.item()) or not bool(x.isfinite().all()):
            return False
        for name, value in evaluation.values.items():
            self._curve.setdefault(name, []).append((self.update, value.item()))
        if evaluation.distances is not None:
            self._distances = evaluation.distances.tolist()
        return True

    def advance(
        self,
        request: Request,
        restarts: int,
        random: torch.Generator,
        optimizer: torch.optim.Optimizer,
        **kept: Tensor,
    ) -> None:
        """Count an update, report the progress, and offer a checkpoint of what has been done, unless all has.

        Args:
            restarts, random, optimizer, kept: see `Checkpoint.of`.
        """
        request.on_progress(self.share)
        self.update += 1
        if self.update <= self._last:
            request.on_update(lambda: Checkpoint.of(restarts, self._so_far(), random, optimizer, **kept))

    def _so_far(self) -> Record:
        curve = {name: list(points) for name, points in self._curve.items()}
        return Record(self.update, curve, list(self._distances))

    def restore(self, record: Record) -> None:
        """Continue a record of as many updates; raises ShardError if none is done, or none remains."""
        if not 0 < record.updates <= self._last:
            raise ShardError(f"the checkpoint is not one of this batch ({record.updates} of {self._last + 1} updates)")
        self.update, self._distances = record.updates, list(record.distances)
        self._curve = {name: list(points) for name, points in record.curve.items()}

    def synthesis(
        self, images: Tensor, names: list[str], restarts: int, notes: tuple[str, ...], targets: Tensor | None = None
    ) -> Synthesis:
        """Return the attempt's result, see `Synthesis`; the names are those of the BN layers."""
        losses = {name: points[-1][1] for name, points in self._curve.items()}
        distances = dict(zip(names, self._distances, strict=True))
        return Synthesis(images, losses, distances, self._curve, restarts, notes, targets)
