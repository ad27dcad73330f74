"""What every worker of a student does, wherever its images come from: begin, wait, report, save."""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import ray
import torch
from ray.util.queue import Queue
from torch import nn

from raydream.compute import compute_deterministically, use_device
from raydream.config import DistillConfig, TransferConfig
from raydream.networks import build_student
from raydream.runtime.checkpoints import read_checkpoint, steps_saved, write_checkpoint
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import StudentReport
from raydream.seeds import derive_seed
from raydream.store.folders import Folder
from raydream.store.records import Snapshot
from raydream.students.distillation import Distiller
from raydream.teachers.teacher import teacher_from_arrays, to_arrays

log = logging.getLogger(__name__)

WORTH_TELLING_S = 0.05
"""a wait shorter than this is not shown in the timeline"""


@dataclass(frozen=True)
class Seat:
    """A worker's place among those that train a student together.

    Attributes:
        rank, workers: its number from 0, and how many workers there are.
        checkpoints: folder of the checkpoints.
    """

    rank: int
    workers: int
    checkpoints: Folder

    def place(self, student: nn.Module, device: torch.device) -> nn.Module:
        """The student on a device, by Ray Train where its gradients are averaged with those of other workers."""
        if self.workers == 1:
            return student.to(device)
        from ray.train.torch import prepare_model  # here, as it takes a second, and one worker needs none of it

        prepared: nn.Module = prepare_model(student, move_to_device=device)
        return prepared


@dataclass(frozen=True)
class Learner:
    """A student in one of its workers.

    Attributes:
        distiller: trains it.
        step: distillation steps behind the checkpoint from which it resumes; 0 where there is none.
        seat: of the worker.
    """

    distiller: Distiller
    step: int
    seat: Seat

    @classmethod
    def begin(
        cls, config: DistillConfig | TransferConfig, teacher: ray.ObjectRef, total_steps: int, seat: Seat
    ) -> "Learner":
        """The student as its last checkpoint has it, or with fresh weights.

        Args:
            teacher: reference to its arrays.
            total_steps: over which the learning rate decays.
            seat: of this worker.
        """
        name_logs("student", seat.rank)
        device = device_of(config)
        whom = teacher_from_arrays(config.teacher, ray.get(teacher)).to(device)
        torch.manual_seed(derive_seed(config.seed, "student weights"))
        student = seat.place(build_student(config.student, config.teacher), device)
        distiller = Distiller(whom, student, config.student, total_steps, config.seed, seat.rank)
        if step := steps_saved(seat.checkpoints):
            distiller.load_state_dict(read_checkpoint(seat.checkpoints, step))
        return cls(distiller, step, seat)

    @property
    def rank(self) -> int:
        """Of the worker."""
        return self.seat.rank

    @property
    def workers(self) -> int:
        """How many train the student together."""
        return self.seat.workers

    def save(self, step: int) -> None:
        """Commit a checkpoint; rank 0 alone does, whose BN statistics count."""
        if self.rank == 0:
            log.info("checkpoint of step %d", step)
            write_checkpoint(self.seat.checkpoints, step, self.distiller.state_dict())


class Waits:
    """A worker's time since its last report: how long it waited for images, and the stretches without a wait."""

    def __init__(self) -> None:
        self.waited_s = 0.0
        self.busy: list[tuple[float, float]] = []
        self._busy_since = time.time()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The length of a `with` block is a wait."""
        began = time.time()
        yield
        ended = time.time()
        self.waited_s += ended - began
        if ended - began > WORTH_TELLING_S:
            self.busy.append((self._busy_since, began - self._busy_since))
            self._busy_since = ended

    def take(self) -> tuple[float, list[tuple[float, float]]]:
        """Seconds waited, and (start, seconds) of each stretch of work; both begin anew."""
        now = time.time()
        waited_s, busy = self.waited_s, [*self.busy, (self._busy_since, now - self._busy_since)]
        self.waited_s, self.busy, self._busy_since = 0.0, [], now
        return waited_s, busy


class Reporter:
    """Collects what each step says, and passes it on with the student's weights; rank 0 alone does.

    Args:
        reports: a queue, to the driver.
    """

    def __init__(self, reports: Queue, learner: Learner) -> None:
        self._reports, self._learner = reports, learner
        self._first_step = learner.step
        self._noted: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.waits = Waits()

    def note(self, loss: torch.Tensor, agreement: torch.Tensor) -> None:
        """What a step gave."""
        self._noted.append((loss, agreement))

    def report(self, step: int) -> None:
        """Tell the driver of all steps since the last report.

        Args:
            step: distillation steps done.
        """
        waited_s, busy = self.waits.take()
        if self._learner.rank == 0:
            steps = range(self._first_step, step)
            values = torch.tensor([[loss.item(), agreement.item()] for loss, agreement in self._noted]).reshape(-1, 2)
            report = StudentReport(
                snapshot=Snapshot(step, to_arrays(self._learner.distiller.learned)),
                first_step=self._first_step,
                losses=values[:, 0].numpy(),
                agreements=values[:, 1].numpy(),
                learning_rates=np.array([self._learner.distiller.learning_rate(each) for each in steps]),
                waited_s=waited_s,
                busy=busy,
            )
            self._reports.put(report)
        self._first_step, self._noted = step, []


def device_of(config: DistillConfig | TransferConfig) -> torch.device:
    """What this worker computes on, set up as its run asks for."""
    device = use_device(config.device, config.student.cpus, config.student.gpus)
    if isinstance(config, DistillConfig) and config.rounds.lockstep:
        compute_deterministically(device)
    return device
