"""The generator actor: runs a synthesizer, commits what it made, and returns it."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from raydream.buffer.shards import ShardStore
from raydream.config import DistillConfig
from raydream.records import BatchId, ImageBatch, Snapshot
from raydream.runtime.device import use_device
from raydream.runtime.messages import Receipt
from raydream.schedule import Schedule
from raydream.synthesis.batch import make_batch
from raydream.teachers.teacher import Teacher, teacher_from_arrays


class Generator:
    """Makes batches on demand.

    Args:
        index: its number, for the record.
        run: id of the run.
        shards: folder to commit to.
    """

    def __init__(self, index: int, run: str, config: DistillConfig, schedule: Schedule, shards: Path) -> None:
        self._device = use_device(config.generators.cpus, config.generators.gpus)
        self._index, self._run, self._config, self._schedule = index, run, config, schedule
        self._teacher: Teacher | None = None
        self._store = ShardStore(shards)

    def make(
        self,
        batch: BatchId,
        teacher: Mapping[str, np.ndarray],
        snapshot: Snapshot | None,
        source: BatchId | None,
    ) -> tuple[Receipt, ImageBatch]:
        """Make a batch and commit it; once this returns, it is durable. The caller owns the returned objects.

        Declared with two returns: the small receipt, and the images that stay in the object store.

        Args:
            teacher: its weights; looked at in the first call only. They are no argument of the constructor, which
                Ray could not repeat for a restarted actor.
            snapshot: the student to compete with, or None.
            source: the committed batch to start from, or None for noise.
        """
        started_at, clock = time.time(), time.perf_counter()
        if self._store.has(batch):
            # Somebody committed it and died before the answer: what is committed stays as it is.
            made = self._store.read(batch)
            return Receipt(made.provenance, started_at, time.perf_counter() - clock, {}), made
        if self._teacher is None:
            self._teacher = teacher_from_arrays(self._config.teacher, teacher).to(self._device)
        start = None if source is None else self._store.read(source)
        made, curve = make_batch(
            self._run, self._config, self._schedule, self._teacher, batch, snapshot, start, self._index
        )
        self._store.write(made)
        return Receipt(made.provenance, started_at, time.perf_counter() - clock, curve), made
