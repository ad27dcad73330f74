"""The student: a Ray Train function that draws images from the buffer and is distilled on them."""

import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.util.queue import Queue

from raydream.buffer.index import Draw, gather
from raydream.compute import use_device
from raydream.config import DistillConfig
from raydream.folders import Folder, LocalFolder
from raydream.networks import build_student
from raydream.records import BatchId, Snapshot
from raydream.runtime.messages import StudentReport
from raydream.runtime.preflight import student_workers_that_fit
from raydream.runtime.session import cluster_nodes, free_places
from raydream.schedule import Schedule
from raydream.seeds import derive_seed
from raydream.shards import ShardStore
from raydream.students.distillation import Distiller
from raydream.teachers.teacher import teacher_from_arrays, to_arrays

CHECKPOINT = "student.pt"
FETCH_TIMEOUT_S = 60.0
"""for a batch from the object store; after that its shard is read"""
WORTH_TELLING_S = 0.05
"""a wait shorter than this is not shown in the timeline"""


@dataclass(frozen=True)
class StudentPlan:
    """What a Train worker needs to know.

    Attributes:
        config, schedule: of the run.
        teacher: a list with the reference to the teacher's arrays.
        buffer: the buffer actor.
        reports: a queue of `StudentReport`, to the driver.
        shards: folder of the committed shards.
        most_batches: whose images a worker keeps at hand.
    """

    config: DistillConfig
    schedule: Schedule
    teacher: list[ray.ObjectRef]
    buffer: Any
    reports: Queue
    shards: Folder
    most_batches: int


class Feed:
    """The images of each step in turn, asked for one block ahead so that the student need not wait.

    Args:
        plan: of the student.
        first_step: the next step.
        rank, workers: of the Train workers.
    """

    def __init__(self, plan: StudentPlan, first_step: int, rank: int, workers: int) -> None:
        self._plan, self._rank, self._workers = plan, rank, workers
        self._store = ShardStore(plan.shards)
        self._images: dict[BatchId, np.ndarray] = {}
        self._arrays: list[np.ndarray] = []
        self._picks: list[np.ndarray] = []
        self._asked = first_step
        self._pending = self._ask()
        self._first = self._end = first_step
        self.waited_s = 0.0
        self.busy: list[tuple[float, float]] = []
        self._busy_since = time.time()

    def images(self, step: int) -> torch.Tensor:
        """uint8 [n,C,H,W], this worker's images of a step; steps are asked for in order."""
        if step >= self._end:
            self._next_block()
        return torch.from_numpy(gather(self._arrays, self._picks[step - self._first]))

    def close_stretch(self) -> None:
        """End the current stretch of `busy`, and begin the next."""
        now = time.time()
        self.busy.append((self._busy_since, now - self._busy_since))
        self._busy_since = now

    def _ask(self) -> ray.ObjectRef | None:
        if self._asked >= self._plan.schedule.total_steps:
            return None
        first = self._asked
        self._asked = self._plan.schedule.block_end(first, self._plan.config.buffer.block_steps)
        return self._plan.buffer.draw.remote(first, self._rank, self._workers)

    def _next_block(self) -> None:
        began = time.time()
        block = self._wait_for_block()
        self._pending = self._ask()
        self._first, self._end, self._picks = self._end, self._end + len(block.picks), block.picks
        self._take(block.batches)
        waited = time.time() - began
        self.waited_s += waited
        if waited > WORTH_TELLING_S:
            self.busy.append((self._busy_since, began - self._busy_since))
            self._busy_since = time.time()

    def _take(self, batches: list[BatchId]) -> None:
        """Have the images of these batches at hand, and let go of those not needed for longest."""
        new = [batch for batch in batches if batch not in self._images]
        fetched = dict(zip(new, map(self._fetch, new, self._handles(new)), strict=True))
        for batch in batches:
            self._images[batch] = fetched[batch] if batch in fetched else self._images.pop(batch)  # now the newest
        # What is looked at here cannot be spilled, so no more is kept than the buffer may fill, or this block needs.
        for batch in list(self._images)[: -max(self._plan.most_batches, len(batches))]:
            del self._images[batch]
        self._arrays = [self._images[batch] for batch in batches]

    def _handles(self, batches: list[BatchId]) -> list[ray.ObjectRef | None]:
        if not batches:
            return []
        handles: list[ray.ObjectRef | None] = ray.get(
            self._plan.buffer.handles.remote(batches), timeout=self._plan.config.buffer.stall_timeout_s
        )
        return handles

    def _wait_for_block(self) -> Draw:
        """The buffer gives up where nothing joins, and says what is missing; if it is there, it is worth waiting."""
        timeout_s = self._plan.config.buffer.stall_timeout_s
        while True:
            try:
                block: Draw = ray.get(self._pending, timeout=timeout_s)
                return block
            except ray.exceptions.GetTimeoutError:
                ray.get(self._plan.buffer.status.remote(), timeout=timeout_s)

    def _fetch(self, batch: BatchId, handle: ray.ObjectRef | None) -> np.ndarray:
        if handle is not None:
            try:
                images: np.ndarray = ray.get(handle, timeout=FETCH_TIMEOUT_S).images
                return images
            except (ray.exceptions.ObjectLostError, ray.exceptions.GetTimeoutError):
                pass  # The reference was a cache; the shard is the truth.
        return self._store.read(batch).images


def train_student(plan: StudentPlan) -> None:
    """Distil the student, in each Train worker: from the last checkpoint on, or from the start."""
    config, schedule = plan.config, plan.schedule
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = use_device(config.device, config.student.cpus, config.student.gpus)
    teacher = teacher_from_arrays(config.teacher, ray.get(plan.teacher[0])).to(device)
    torch.manual_seed(derive_seed(config.seed, "student weights"))
    student = build_student(config.student, config.teacher)
    checkpoint = _load_checkpoint()
    if checkpoint:
        student.load_state_dict(checkpoint["student"])
    trained = ray.train.torch.prepare_model(student, move_to_device=device)
    distiller = Distiller(teacher, trained, config.student, schedule.total_steps, config.seed, rank)
    if checkpoint:
        distiller.optimizer.load_state_dict(checkpoint["optimizer"])
    start = checkpoint["step"] if checkpoint else 0
    reporter = _Reporter(plan, student, distiller, start, rank)
    feed = Feed(plan, start, rank, workers)
    if start:
        reporter.report(start, feed)
    for step in range(start, schedule.total_steps):
        reporter.note(*distiller.step(feed.images(step), step))
        if schedule.is_snapshot(step + 1):
            reporter.report(step + 1, feed)
            last = step + 1 == schedule.total_steps
            if schedule.ends_round(step + 1) and not last and _room_for_more(config, workers):
                return  # and `train` goes on from this checkpoint with more workers


class _Reporter:
    """Collects what each step says, and passes it on with the student's weights."""

    def __init__(self, plan: StudentPlan, student: torch.nn.Module, distiller: Distiller, step: int, rank: int) -> None:
        self._plan, self._student, self._distiller, self._rank = plan, student, distiller, rank
        self._first_step = step
        self._noted: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(self, loss: torch.Tensor, agreement: torch.Tensor) -> None:
        self._noted.append((loss, agreement))

    def report(self, step: int, feed: Feed) -> None:
        """Save a checkpoint where a round ends, then tell the driver (rank 0 does both; its BN statistics count)."""
        ends_round = self._plan.schedule.ends_round(step)
        if ends_round and step > self._first_step:
            self._save(step)
        feed.close_stretch()
        if self._rank == 0:
            steps = np.arange(self._first_step, step)
            values = torch.tensor([[loss.item(), agreement.item()] for loss, agreement in self._noted]).reshape(-1, 2)
            report = StudentReport(
                snapshot=Snapshot(step, to_arrays(self._student)),
                first_step=self._first_step,
                losses=values[:, 0].numpy(),
                agreements=values[:, 1].numpy(),
                learning_rates=np.array([self._distiller.learning_rate(int(s)) for s in steps]),
                waited_s=feed.waited_s,
                busy=feed.busy,
            )
            self._plan.reports.put(report)
        self._first_step, self._noted, feed.waited_s, feed.busy = step, [], 0.0, []

    def _save(self, step: int) -> None:
        if self._rank != 0:
            ray.train.report({"step": step})
            return
        state = {
            "step": step,
            "student": self._student.state_dict(),
            "optimizer": self._distiller.optimizer.state_dict(),
        }
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / CHECKPOINT)
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _load_checkpoint() -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return read_checkpoint(LocalFolder(Path(folder)))


def read_checkpoint(folder: Folder) -> dict[str, Any]:
    """The student's and its optimizer's state, and the step behind them."""
    state: dict[str, Any] = torch.load(io.BytesIO(folder.read(CHECKPOINT)), weights_only=True, map_location="cpu")
    return state


def _room_for_more(config: DistillConfig, workers: int) -> bool:
    """Whether the student could train with more workers by now; all of its workers get the same answer."""
    if workers == config.student.workers:
        return False
    most = min(student_workers_that_fit(config, cluster_nodes()), workers + free_places(config.student.resources))
    found = any(workers < count <= most for count in config.student.worker_counts)
    answer: bool = ray.train.collective.broadcast_from_rank_zero(found)
    return answer
