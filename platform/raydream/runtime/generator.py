"""The generator actor: runs a synthesizer, commits what it made, and returns it."""

import time
from dataclasses import dataclass
from pathlib import Path

import ray

from raydream.buffer.shards import ShardStore
from raydream.config import DistillConfig
from raydream.records import BatchId, ImageBatch, Provenance, Snapshot
from raydream.runtime.device import use_device
from raydream.schedule import Schedule
from raydream.synthesis.batch import make_batch
from raydream.teachers.teacher import teacher_from_arrays


@dataclass(frozen=True)
class Receipt:
    """What a generator says of a batch that it has committed; small enough for any mailbox.

    Attributes:
        provenance: of the batch.
        started_at: seconds since the epoch.
        seconds: it took, the commit included.
        curve: each loss term over the updates, as (update, value) pairs.
    """

    provenance: Provenance
    started_at: float
    seconds: float
    curve: dict[str, list[tuple[int, float]]]


@ray.remote(max_restarts=-1)
class Generator:
    """Makes batches on demand.

    Args:
        index: its number, for the record.
        run: id of the run.
        teacher: a list with the reference to the teacher's arrays.
        shards: folder to commit to.
    """

    def __init__(
        self,
        index: int,
        run: str,
        config: DistillConfig,
        schedule: Schedule,
        teacher: list[ray.ObjectRef],
        shards: Path,
    ) -> None:
        device = use_device(config.generators.cpus, config.generators.gpus)
        self._index, self._run, self._config, self._schedule = index, run, config, schedule
        self._teacher = teacher_from_arrays(config.teacher, ray.get(teacher[0])).to(device)
        self._store = ShardStore(shards)

    def make(self, batch: BatchId, snapshot: Snapshot | None, source: BatchId | None) -> tuple[Receipt, ImageBatch]:
        """Make a batch and commit it; once this returns, it is durable. The caller owns the returned objects.

        Declared with two returns: the small receipt, and the images that stay in the object store.
        """
        started_at, clock = time.time(), time.perf_counter()
        start = None if source is None else self._store.read(source)
        made, curve = make_batch(
            self._run, self._config, self._schedule, self._teacher, batch, snapshot, start, self._index
        )
        self._store.write(made)
        return Receipt(made.provenance, started_at, time.perf_counter() - clock, curve), made
