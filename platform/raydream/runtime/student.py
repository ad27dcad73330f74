"""The student of a run in rounds: its workers draw images from the buffer and are distilled on them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from raydream.buffer.index import Draw, gather
from raydream.config import DistillConfig, StudentConfig
from raydream.runtime.images import whole_batch
from raydream.runtime.learner import Learner, Reporter, Seat, Waits
from raydream.runtime.messages import ReportQueue
from raydream.runtime.placement import Nodes, student_workers_that_fit
from raydream.runtime.session import cluster_nodes, free_places
from raydream.schedule import Schedule
from raydream.store.folders import Folder
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore


@dataclass(frozen=True)
class StudentPlan:
    """Settings of the run that a worker of the student works by.

    Attributes:
        config, schedule: of the run.
        teacher: a list with the reference to the teacher's arrays.
        buffer: the buffer actor.
        reports: a queue of `StudentReport`, to the driver.
        shards: folder of the committed shards.
        most_batches: number of batches whose images a worker keeps.
    """

    config: DistillConfig
    schedule: Schedule
    teacher: list[ray.ObjectRef]
    buffer: Any
    reports: ReportQueue
    shards: Folder
    most_batches: int
    who = "the student"

    @property
    def total_steps(self) -> int:
        """Return the number of distillation steps of the whole run."""
        return self.schedule.total_steps

    @property
    def seats(self) -> StudentConfig:
        """Return the settings of the workers."""
        return self.config.student

    @property
    def streams(self) -> bool:
        """Return False: images come from the buffer."""
        return False

    def workers_that_fit(self, nodes: Nodes) -> int:
        """Return the number of workers with which the student can be scheduled on these nodes."""
        return student_workers_that_fit(self.config, nodes)

    def datasets(self, step: int) -> dict[str, Any]:
        """Return no datasets."""
        return {}

    def work(self, seat: Seat) -> None:
        """Return the function that each worker runs."""
        train_student(self, seat)


class BufferFeed:
    """Provides the images of each step in turn, requested one block ahead so that the student need not wait.

    Args:
        plan: of the student.
        first_step: the next step.
        rank, workers: of the student's workers.
        waits: measures how long the student waits.
    """

    def __init__(self, plan: StudentPlan, first_step: int, rank: int, workers: int, waits: Waits) -> None:
        self._plan, self._rank, self._workers, self._waits = plan, rank, workers, waits
        self._store = ShardStore(plan.shards)
        self._images: dict[BatchId, np.ndarray] = {}
        self._arrays: list[np.ndarray] = []
        self._picks: list[np.ndarray] = []
        self._asked = first_step
        self._pending = self._ask()
        self._first = self._end = first_step

    def images(self, step: int) -> torch.Tensor:
        """Return this worker's images of a step, uint8 [n,C,H,W]; steps are requested in order."""
        if step >= self._end:
            with self._waits.waiting():
                self._next_block()
        return torch.from_numpy(gather(self._arrays, self._picks[step - self._first]))

    def _ask(self) -> ray.ObjectRef | None:
        if self._asked >= self._plan.schedule.total_steps:
            return None
        first = self._asked
        self._asked = self._plan.schedule.block_end(first, self._plan.config.buffer.block_steps)
        return self._plan.buffer.draw.remote(first, self._rank, self._workers)

    def _next_block(self) -> None:
        block = self._wait_for_block()
        self._pending = self._ask()
        self._first, self._end, self._picks = self._end, self._end + len(block.picks), block.picks
        self._take(block.batches)

    def _take(self, batches: list[BatchId]) -> None:
        """Load the images of these batches, and drop those not used for longest."""
        new = [batch for batch in batches if batch not in self._images]
        handles = zip(new, self._handles(new), strict=True)
        fetched = {batch: whole_batch(batch, handle, self._store).images for batch, handle in handles}
        for batch in batches:
            self._images[batch] = fetched[batch] if batch in fetched else self._images.pop(batch)  # now the newest
        # Images in use here cannot be spilled, so no more are kept than the buffer may fill, or this block needs.
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
        """Wait for the block without a timeout: the buffer gives up if nothing joins, and names what is missing."""
        timeout_s = self._plan.config.buffer.stall_timeout_s
        while True:
            try:
                block: Draw = ray.get(self._pending, timeout=timeout_s)
                return block
            except ray.exceptions.GetTimeoutError:
                ray.get(self._plan.buffer.status.remote(), timeout=timeout_s)


def train_student(plan: StudentPlan, seat: Seat) -> None:
    """Distill the student in one of its workers, from the last checkpoint if there is one."""
    schedule, learner = plan.schedule, Learner.begin(plan.config, plan.teacher[0], plan.total_steps, seat)
    reporter = Reporter(plan.reports, learner)
    feed = BufferFeed(plan, learner.step, learner.rank, learner.workers, reporter.waits)
    if learner.step:
        reporter.report(learner.step)
    for step in range(learner.step, schedule.total_steps):
        reporter.note(*learner.learning.step(feed.images(step), step))
        if schedule.is_snapshot(step + 1):
            if schedule.ends_round(step + 1):
                learner.save(step + 1)
            reporter.report(step + 1)
            last = step + 1 == schedule.total_steps
            if schedule.ends_round(step + 1) and not last and _room_for_more(plan.config, learner.workers):
                return  # and `train` resumes from this checkpoint with more workers


def _room_for_more(config: DistillConfig, workers: int) -> bool:
    """Return whether the student could now train with more workers; all of its workers get the same answer."""
    if workers == config.student.workers:
        return False
    from ray.train.collective import broadcast_from_rank_zero  # here, as one worker needs nothing of Ray Train

    most = min(student_workers_that_fit(config, cluster_nodes()), workers + free_places(config.student.resources))
    found = any(workers < count <= most for count in config.student.worker_counts)
    answer: bool = broadcast_from_rank_zero(found)
    return answer
