"""The generator actor: runs a synthesizer, commits each batch, and returns it."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import ray

from raydream.applications.reuse import EarlierImages
from raydream.compute import compute_deterministically, use_device
from raydream.config import GeneratorsConfig, StudentConfig, SynthesisConfig, TeacherConfig
from raydream.networks import build_student
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import BatchProgress, Receipt, ReportQueue, Throttled
from raydream.store.folders import Folder
from raydream.store.learned import LearnedStates
from raydream.store.records import BatchId, ImageBatch, Order, Snapshot
from raydream.store.shards import ShardStore
from raydream.store.unfinished import UnfinishedBatches
from raydream.synthesis.batch import BatchMaker
from raydream.synthesis.resuming import Checkpointing
from raydream.teachers.teacher import teacher_from_arrays

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratorPlan:
    """Settings of the run that a generator works by.

    Attributes:
        run: id of the run.
        device: as the run's configuration names it.
        student: the network of the snapshots; None if no student competes.
        shards: folder to commit to.
        sources: folder of the shards to start from.
        reuse: absolute path of a folder of earlier runs, whose images are reused where they are the same; empty: none.
        batches: number of batches of the whole run.
        lockstep: whether any batch can be made again to the bit: all that is learned is kept, and a GPU computes
            deterministically.
    """

    run: str
    device: str
    teacher: TeacherConfig
    synthesis: SynthesisConfig
    student: StudentConfig | None
    generators: GeneratorsConfig
    shards: Folder
    sources: Folder
    reuse: str = ""
    batches: int = 1
    lockstep: bool = False


class Generator:
    """Makes batches on demand.

    Args:
        index: its number, for the record.
    """

    def __init__(self, index: int, plan: GeneratorPlan) -> None:
        name_logs("generator", index)
        self._device = use_device(plan.device, plan.generators.cpus, plan.generators.gpus)
        if plan.lockstep:
            compute_deterministically(self._device)
        self._index, self._plan = index, plan
        self._maker: BatchMaker | None = None
        self._earlier: EarlierImages | None = None
        self._store, self._unfinished = ShardStore(plan.shards), UnfinishedBatches(plan.shards)

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    def ready(self) -> str:
        """Return the id of its node once the generator is available, however often its process has to be started."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def make(
        self,
        order: Order,
        teacher: Mapping[str, np.ndarray],
        snapshot: Snapshot | None,
        source: BatchId | None,
        reports: ReportQueue,
    ) -> tuple[Receipt, ImageBatch]:
        """Make a batch and commit it; once this returns, it is durable. The caller owns the returned objects.

        Declared with two returns: the small receipt, and the images that stay in the object store.

        Args:
            teacher: its weights; read in the first call only. The constructor does not take them, as Ray could not
                repeat it for a restarted actor.
            snapshot: the student to compete with, or None.
            source: the committed batch to start from, or None for noise.
            reports: queue for progress reports; not an argument of the constructor for the same reason.
        """
        started_at, clock = time.time(), time.perf_counter()

        def kept() -> tuple[Receipt, ImageBatch]:
            # An earlier run made it, or a generator committed it but died or was cut off before its answer: what
            # is committed stays as it is.
            batch = self._store.read(order.batch)
            return Receipt(batch.provenance, started_at, time.perf_counter() - clock, {}), batch

        if self._store.has(order.batch):
            return kept()
        if self._maker is None:
            self._maker = self._make_maker(teacher)
        start = None if source is None else ShardStore(self._plan.sources).read(source)

        if self._earlier is not None and self._earlier.take(order.batch, self._maker.recipe(order, snapshot, start)):
            return kept()
        made = self._maker.make(order, snapshot, start, Throttled(reports, partial(BatchProgress, order.batch)))
        written = self._store.write(made.batch)
        self._unfinished.delete(order.batch)
        if not written:
            return kept()
        seconds = time.perf_counter() - clock
        log.info(
            "made batch %s in %.1f s, %.1f %% on target", order.batch, seconds, 100 * made.batch.provenance.target_share
        )
        return Receipt(made.batch.provenance, started_at, seconds, made.curve, made.notes), made.batch

    def _make_maker(self, weights: Mapping[str, np.ndarray]) -> BatchMaker:
        plan, student = self._plan, self._plan.student
        teacher = teacher_from_arrays(plan.teacher, weights).to(self._device)
        build = None if student is None else lambda: build_student(student, plan.teacher)
        states = LearnedStates.of(plan.shards, plan.synthesis.generator.chains, all_kept=plan.lockstep)
        self._earlier = EarlierImages(plan.reuse, self._store, teacher.fingerprint)
        return BatchMaker(
            plan.run,
            teacher,
            plan.synthesis,
            build,
            self._index,
            states,
            plan.batches,
            Checkpointing(self._unfinished, plan.generators.checkpoint_s, plan.lockstep),
        )
