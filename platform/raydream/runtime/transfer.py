"""The student of a transfer: its workers go over a finished set of images, epoch by epoch."""

from dataclasses import dataclass
from typing import Any

import ray
from ray.util.queue import Queue

from raydream.config import TransferConfig
from raydream.runtime.feeds import Feed
from raydream.runtime.learner import Learner, Reporter, Seat
from raydream.runtime.messages import StepsDone, Throttled
from raydream.runtime.placement import Nodes, workers_beside_reading
from raydream.schedule import Epochs


@dataclass(frozen=True)
class TransferPlan:
    """Settings of the run that a worker of the student works by.

    Attributes:
        teacher: a list with the reference to the teacher's arrays.
        feed: source of the images.
        reports: a queue of `StudentReport`, to the driver.
    """

    config: TransferConfig
    epochs: Epochs
    teacher: list[ray.ObjectRef]
    feed: Feed
    reports: Queue

    @property
    def total_steps(self) -> int:
        """Return the number of distillation steps of the whole run."""
        return self.epochs.total_steps

    @property
    def streams(self) -> bool:
        """Return whether Ray Data streams the images."""
        return self.feed.streams

    def workers_that_fit(self, nodes: Nodes) -> int:
        """Return the number of workers with which the student can be scheduled on these nodes."""
        return workers_beside_reading(self.config, self.feed.read_cpus, nodes)

    def datasets(self, step: int) -> dict[str, Any]:
        """Return the datasets to stream to a Train job that resumes at a step, where an epoch begins."""
        return self.feed.datasets(step // self.epochs.steps)

    def work(self, seat: Seat) -> None:
        """Distill the student in one of its workers, from the last checkpoint if there is one."""
        epochs, learner = self.epochs, Learner.begin(self.config, self.teacher[0], self.total_steps, seat)
        reporter, tell = Reporter(self.reports, learner), Throttled(self.reports, StepsDone)
        if learner.step:
            reporter.report(learner.step)
        for epoch in range(learner.step // epochs.steps, epochs.count):
            batches = self.feed.epoch(epoch, learner.rank, learner.workers)
            for step in range(epoch * epochs.steps, (epoch + 1) * epochs.steps):
                with reporter.waits.waiting():
                    images = next(batches)
                reporter.note(*learner.distiller.step(images, step))
                if learner.rank == 0:
                    tell(step + 1)
            next(batches, None)  # a stream must end before the next epoch's begins
            learner.save((epoch + 1) * epochs.steps)
            reporter.report((epoch + 1) * epochs.steps)
