"""The workers of a teacher's training: the one process of a run that learns from real images and their labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from raydream.compute import threads_that_pay, use_device
from raydream.config import TeacherJobConfig, WorkersConfig
from raydream.data.splits import Split
from raydream.errors import InputError
from raydream.runtime.learner import Learner, Reports, Seat, learn_and_report
from raydream.runtime.logs import name_logs
from raydream.runtime.placement import Nodes
from raydream.schedule import Epochs
from raydream.supervised.training import begin_teacher


def check_room(workers: WorkersConfig, nodes: Nodes) -> None:
    """Raise InputError if the nodes have no room for all workers, which would wait for it forever."""
    for kind, name in (("cpus", "CPU"), ("gpus", "GPU")):
        each, there = getattr(workers, kind), sum(node.get(name, 0.0) for node in nodes)
        if workers.count * each > there + 1e-9:
            allowed, wanted = f"at most {there / workers.count:.3g}", workers.count * each
            remedy = f"{workers.count} workers reserve {wanted:g} {name}s and there are {there:g}: ask for fewer"
            raise InputError(f"workers.{kind}", each, allowed, remedy)


def training_device(config: TeacherJobConfig) -> torch.device:
    """Set up and return the device of a worker: of the only one, the best of the machine, with all its CPUs."""
    if config.workers.count == 1:
        return use_device(config.device, torch.get_num_threads(), torch.cuda.device_count())
    return use_device(config.device, config.workers.cpus, config.workers.gpus)


@dataclass(frozen=True)
class TeacherPlan:
    """Settings of the run that a worker works by; see `TrainPlan`.

    Attributes:
        train: returns the labeled real images.
        epochs: passes over them.
        reports: takes a `StudentReport` of each epoch, to the driver.
        report_step: called with the number of steps done.
    """

    config: TeacherJobConfig
    train: Callable[[], Split]
    epochs: Epochs
    reports: Reports
    report_step: Callable[[int], object]
    who = "the teacher"
    streams = False

    @property
    def seats(self) -> WorkersConfig:
        """Return the settings of the workers."""
        return self.config.workers

    @property
    def total_steps(self) -> int:
        """Return the number of steps of the whole run."""
        return self.epochs.total_steps

    def workers_that_fit(self, nodes: Nodes) -> int:
        """Return the number of workers: all, as `check_room` has found room for them."""
        return self.seats.count

    def datasets(self, step: int) -> Mapping[str, Any]:
        """Return no datasets."""
        return {}

    def work(self, seat: Seat) -> None:
        """Train the teacher in one of its workers, from the last checkpoint if there is one."""
        if seat.workers > 1:
            name_logs("teacher", seat.rank)
        config, device = self.config, training_device(self.config)
        place = partial(seat.place, device=device)
        learning, feed = begin_teacher(
            config.teacher, config.training, self.train(), device, place, seat.rank, seat.workers
        )
        with threads_that_pay(learning.student, config.teacher.input_shape, config.training.batch_size):
            learn_and_report(Learner.resumed(learning, seat), self.epochs, feed.epoch, self.reports, self.report_step)
