"""The student of a transfer: its workers go over a finished set of images, epoch by epoch."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from raydream.config import StudentConfig, TransferConfig
from raydream.runtime.feeds import Feed
from raydream.runtime.learner import Learner, Seat, learn_and_report
from raydream.runtime.messages import ReportQueue, StepsDone, Throttled
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
    reports: ReportQueue
    who = "the student"

    @property
    def total_steps(self) -> int:
        """Return the number of distillation steps of the whole run."""
        return self.epochs.total_steps

    @property
    def seats(self) -> StudentConfig:
        """Return the settings of the workers."""
        return self.config.student

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
        learner = Learner.begin(self.config, self.teacher[0], self.total_steps, seat)
        report_step = Throttled(self.reports, StepsDone)
        learn_and_report(
            learner,
            self.epochs,
            partial(self.feed.epoch, rank=seat.rank, workers=seat.workers),
            self.reports,
            report_step,
        )
