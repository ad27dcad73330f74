"""What every student's Train worker does, wherever its images come from: begin, wait, report, save."""

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from ray.util.queue import Queue

from raydream.compute import compute_deterministically, use_device
from raydream.config import DistillConfig, TransferConfig
from raydream.networks import build_student
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import StudentReport
from raydream.seeds import derive_seed
from raydream.store.folders import Folder, LocalFolder
from raydream.store.records import Snapshot
from raydream.students.distillation import Distiller
from raydream.teachers.teacher import teacher_from_arrays, to_arrays

log = logging.getLogger(__name__)

CHECKPOINT = "student.pt"
WORTH_TELLING_S = 0.05
"""a wait shorter than this is not shown in the timeline"""


@dataclass(frozen=True)
class Learner:
    """A student in a Train worker.

    Attributes:
        distiller: trains it.
        step: distillation steps behind the checkpoint that it goes on from; 0 where there is none.
        rank, workers: of the Train workers.
    """

    distiller: Distiller
    step: int
    rank: int
    workers: int

    @classmethod
    def begin(cls, config: DistillConfig | TransferConfig, teacher: ray.ObjectRef, total_steps: int) -> "Learner":
        """The student as its last checkpoint has it, or with fresh weights.

        Args:
            teacher: reference to its arrays.
            total_steps: over which the learning rate decays.
        """
        context = ray.train.get_context()
        rank, workers = context.get_world_rank(), context.get_world_size()
        name_logs("student", rank)
        device = device_of(config)
        whom = teacher_from_arrays(config.teacher, ray.get(teacher)).to(device)
        torch.manual_seed(derive_seed(config.seed, "student weights"))
        student = build_student(config.student, config.teacher)
        trained = ray.train.torch.prepare_model(student, move_to_device=device)
        distiller = Distiller(whom, trained, config.student, total_steps, config.seed, rank)
        checkpoint = _load_checkpoint()
        if checkpoint:
            distiller.load_state_dict(checkpoint)
        return cls(distiller, checkpoint["step"] if checkpoint else 0, rank, workers)

    def save(self, step: int) -> None:
        """Make a checkpoint, of which rank 0 has the weights (its BN statistics count); all workers call it."""
        if self.rank != 0:
            ray.train.report({"step": step})
            return
        log.info("checkpoint of step %d", step)
        with tempfile.TemporaryDirectory() as folder:
            torch.save({"step": step, **self.distiller.state_dict()}, Path(folder) / CHECKPOINT)
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))


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
    """What this Train worker computes on, set up as its run asks for."""
    device = use_device(config.device, config.student.cpus, config.student.gpus)
    if isinstance(config, DistillConfig) and config.rounds.lockstep:
        compute_deterministically(device)
    return device


def read_checkpoint(folder: Folder) -> dict[str, Any]:
    """The student's and its optimizer's state, and the step behind them."""
    state: dict[str, Any] = torch.load(io.BytesIO(folder.read(CHECKPOINT)), weights_only=True, map_location="cpu")
    return state


def _load_checkpoint() -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return read_checkpoint(LocalFolder(Path(folder)))
