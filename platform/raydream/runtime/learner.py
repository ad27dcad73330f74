"""The part of a student's worker that does not depend on the source of its images: begin, wait, report, save."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import ray
import torch
from torch import nn

from raydream.compute import compute_deterministically, use_device
from raydream.config import DistillConfig, TransferConfig
from raydream.networks import build_student
from raydream.runtime.checkpoints import read_checkpoint, steps_saved, write_checkpoint
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import StudentReport
from raydream.schedule import Epochs
from raydream.seeds import derive_seed
from raydream.store.folders import Folder
from raydream.store.records import Snapshot
from raydream.students.distillation import Distiller
from raydream.students.learning import Learning, learn_epochs
from raydream.teachers.teacher import teacher_from_arrays, to_arrays

log = logging.getLogger(__name__)

Kind = TypeVar("Kind", bound=Learning[Any])
Batch = TypeVar("Batch")

WORTH_SHOWING_S = 0.05
"""a wait shorter than this is not shown in the timeline"""


@dataclass(frozen=True)
class Seat:
    """A worker's place among those that train a student together.

    Attributes:
        rank, workers: its number from 0, and the number of workers.
        checkpoints: folder of the checkpoints.
    """

    rank: int
    workers: int
    checkpoints: Folder

    def place(self, student: nn.Module, device: torch.device) -> nn.Module:
        """Put the student on a device, by Ray Train if its gradients are averaged with those of other workers."""
        if self.workers == 1:
            return student.to(device)
        from ray.train.torch import prepare_model  # here, as it takes a second, and one worker needs none of it

        prepared: nn.Module = prepare_model(student, move_to_device=device)
        return prepared


@dataclass(frozen=True)
class Learner(Generic[Kind]):
    """A network that learns, in one of its workers.

    Attributes:
        learning: trains it.
        step: steps in the checkpoint from which it resumes; 0 if there is none.
        seat: of the worker.
    """

    learning: Kind
    step: int
    seat: Seat

    @classmethod
    def resumed(cls, learning: Kind, seat: Seat) -> "Learner[Kind]":
        """Load the network's last checkpoint, if there is one."""
        if step := steps_saved(seat.checkpoints):
            learning.load_state_dict(read_checkpoint(seat.checkpoints, step))
        return cls(learning, step, seat)

    @staticmethod
    def begin(
        config: DistillConfig | TransferConfig, teacher: ray.ObjectRef, total_steps: int, seat: Seat
    ) -> "Learner[Distiller]":
        """Load the student from its last checkpoint, or make one with fresh weights.

        Args:
            teacher: reference to its arrays.
            total_steps: steps over which the learning rate decays.
            seat: of this worker.
        """
        name_logs("student", seat.rank)
        device = device_of(config)
        whom = teacher_from_arrays(config.teacher, ray.get(teacher)).to(device)
        torch.manual_seed(derive_seed(config.seed, "student weights"))
        student = seat.place(build_student(config.student, config.teacher), device)
        return Learner.resumed(Distiller(whom, student, config.student, total_steps, config.seed, seat.rank), seat)

    @property
    def rank(self) -> int:
        """Return this worker's rank."""
        return self.seat.rank

    @property
    def workers(self) -> int:
        """Return the number of workers that train the student together."""
        return self.seat.workers

    def save(self, step: int) -> None:
        """Commit a checkpoint; only rank 0 does, as its BN statistics count."""
        if self.rank == 0:
            log.info("checkpoint of step %d", step)
            write_checkpoint(self.seat.checkpoints, step, self.learning.state_dict())


class Waits:
    """Measures a worker's time since its last report: seconds waited for images, and the stretches of work."""

    def __init__(self) -> None:
        self.waited_s = 0.0
        self.busy: list[tuple[float, float]] = []
        self._busy_since = _now()

    def waited(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches, and count what each of them takes as a wait."""
        while True:
            with self.waiting():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the duration of a `with` block as a wait."""
        began = time.monotonic()
        yield
        waited_s = time.monotonic() - began
        self.waited_s += waited_s
        if waited_s > WORTH_SHOWING_S:
            self._end_stretch(began)

    def take(self) -> tuple[float, list[tuple[float, float]]]:
        """Return the seconds waited, and (start, seconds) of each stretch of work; then reset both."""
        self._end_stretch(time.monotonic())
        waited_s, busy = self.waited_s, self.busy
        self.waited_s, self.busy = 0.0, []
        return waited_s, busy

    def _end_stretch(self, clock: float) -> None:
        moment, since = self._busy_since
        self.busy.append((moment, clock - since))
        self._busy_since = _now()


def _now() -> tuple[float, float]:
    """Return the moment in seconds since the epoch, and on a clock that is never adjusted, for durations."""
    return time.time(), time.monotonic()


class Reports(Protocol):
    """The place where a worker puts its reports."""

    def put(self, item: Any) -> None:
        """Take a report."""


class Reporter:
    """Collects the figures of each step and reports them with the student's weights; only rank 0 does.

    Args:
        reports: takes each report, to the driver: a queue, for one.
    """

    def __init__(self, reports: Reports, learner: Learner[Any]) -> None:
        self._reports, self._learner = reports, learner
        self._first_step = learner.step
        self._noted: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.waits = Waits()

    def note(self, loss: torch.Tensor, agreement: torch.Tensor) -> None:
        """Take in a step's figures."""
        self._noted.append((loss, agreement))

    def report(self, step: int) -> None:
        """Report all steps since the last report to the driver.

        Args:
            step: distillation steps done.
        """
        waited_s, busy = self.waits.take()
        if self._learner.rank == 0:
            steps = range(self._first_step, step)
            values = torch.tensor([[loss.item(), agreement.item()] for loss, agreement in self._noted]).reshape(-1, 2)
            report = StudentReport(
                snapshot=Snapshot(step, to_arrays(self._learner.learning.learned)),
                first_step=self._first_step,
                losses=values[:, 0].numpy(),
                agreements=values[:, 1].numpy(),
                learning_rates=np.array([self._learner.learning.learning_rate(each) for each in steps]),
                waited_s=waited_s,
                busy=busy,
            )
            self._reports.put(report)
        self._first_step, self._noted = step, []


def learn_and_report(
    learner: Learner[Any],
    epochs: Epochs,
    batches: Callable[[int], Iterator[Any]],
    reports: Reports,
    report_step: Callable[[int], object],
) -> None:
    """Train a network to its end, with a checkpoint and a report after each epoch.

    Args:
        epochs: the passes over the images.
        batches: returns this worker's batches of an epoch.
        reports: takes a `StudentReport` of each epoch.
        report_step: called by rank 0 with the number of steps done, after each.
    """
    reporter = Reporter(reports, learner)
    if learner.step:
        reporter.report(learner.step)

    def on_step(step: int, loss: torch.Tensor, agreement: torch.Tensor) -> None:
        reporter.note(loss, agreement)
        if learner.rank == 0:
            report_step(step)

    def on_epoch(epoch: int) -> None:
        learner.save(epoch * epochs.steps)
        reporter.report(epoch * epochs.steps)

    def waited(epoch: int) -> Iterator[Any]:
        return reporter.waits.waited(batches(epoch))

    learn_epochs(learner.learning, epochs, learner.step // epochs.steps, waited, on_step, on_epoch)


def device_of(config: DistillConfig | TransferConfig) -> torch.device:
    """Set up and return the device that this worker computes on, as its run's settings ask."""
    device = use_device(config.device, config.student.cpus, config.student.gpus)
    if isinstance(config, DistillConfig) and config.rounds.lockstep:
        compute_deterministically(device)
    return device
