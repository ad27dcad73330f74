"""Estimates the cost of a table from its cells' settings and one measured step of each kind."""

import time
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from raydream.applications.continual.methods import METHODS
from raydream.applications.pruning import total_steps
from raydream.compute import use_device
from raydream.config import (
    ContinualConfig,
    DistillConfig,
    PruneConfig,
    ReproduceConfig,
    StudentConfig,
    SynthesisConfig,
    TransferConfig,
)
from raydream.networks import build_student, build_teacher
from raydream.reproduction.cells import updates_of
from raydream.reproduction.tables import Cell
from raydream.schedule import Epochs, Schedule
from raydream.students.distillation import Distiller
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.synthesis.stages import stages_of
from raydream.teachers.teacher import Teacher, make_teacher

MEASURED = 6
"""updates of each stage, and distillation steps; a step takes the median of all but the first"""


@dataclass(frozen=True)
class PlannedWork:
    """The work of a part of a table, apart from measuring.

    Attributes:
        images: number of images made.
        batches: number of their batches.
        updates: number of updates of all batches.
        steps: number of distillation steps.
    """

    images: int = 0
    batches: int = 0
    updates: int = 0
    steps: int = 0

    def __add__(self, other: "PlannedWork") -> "PlannedWork":
        return PlannedWork(
            *(getattr(self, name) + getattr(other, name) for name in ("images", "batches", "updates", "steps"))
        )


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a table from scratch.

    Attributes:
        cells, sets: number of each.
        work: total work.
        batch_s: seconds of a batch of images, whose updates were measured.
        step_s: seconds of a distillation step, which was measured.
        device: the device measured on.
        each: the resources that a cell reserves, in words.
        storage: bytes of images, before compression.
    """

    cells: int
    sets: int
    work: PlannedWork
    batch_s: float
    step_s: float
    device: str
    each: str
    storage: int

    @property
    def hours(self) -> float:
        """Return the hours of one device."""
        return (self.work.batches * self.batch_s + self.work.steps * self.step_s) / 3600

    def lines(self) -> list[str]:
        """Return the estimate as lines to print."""
        work, kind = self.work, "GPU" if self.device not in ("cpu", "mps") else self.device.upper()
        return [
            f"{self.cells} cells and {self.sets} sets of images shared among them; {self.each} for each",
            f"images to make: {work.images:,} in {work.batches:,} batches, {work.updates:,} updates",
            f"distillation steps: {work.steps:,}",
            f"measured here ({self.device}): {self.batch_s:.3g} s a batch of images, {self.step_s:.3g} s a step",
            f"in all: {self.hours:.3g} {kind}-hours, where each process has a device like this one for itself",
            f"storage for images: at most {self.storage / 2**30:.3g} GiB",
        ]


def estimated(config: ReproduceConfig, cells: list[Cell]) -> Estimate:
    """Add up the work of a table, and measure one step of each kind; weights are random, and nothing is written."""
    sets = {str(cell.images): cell.images for cell in cells if isinstance(cell.images, DistillConfig)}
    work = sum((work_of_set(each) for each in sets.values()), PlannedWork())
    work = sum((work_of_cell(cell, config) for cell in cells), work)
    device = use_device(config.device, config.cpus, config.gpus if torch.cuda.is_available() else 0.0)
    teacher = make_teacher(build_teacher(config.teacher), config.teacher).to(device)
    shape = config.teacher.input_shape
    reserved = ", ".join(f"{amount:g} {name}" for name, amount in config.resources.items())
    return Estimate(
        cells=len(cells),
        sets=len(sets),
        work=work,
        batch_s=batch_seconds(config.synthesis, teacher) if work.batches else 0.0,
        step_s=step_seconds(config.student, teacher),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        each=reserved,
        storage=work.images * (int(np.prod(shape)) + 4 * config.teacher.classes),
    )


def work_of_set(config: DistillConfig) -> PlannedWork:
    """Return the work of making a set of images."""
    schedule = Schedule.of(config)
    batches = schedule.total_batches
    return PlannedWork(batches * schedule.batch_images, batches, batches * updates_of(config), schedule.total_steps)


def work_of_cell(cell: Cell, config: ReproduceConfig) -> PlannedWork:
    """Return the work of a cell whose images exist; `config` gives the number of those that are not made."""
    run = cell.run
    if cell.table == 1 and isinstance(run, DistillConfig):
        return work_of_set(run)
    if isinstance(run, PruneConfig) and cell.images is not None:
        added = run.additions.rounds * run.additions.batches
        updates = added * sum(stage.iterations for stage in stages_of(run.synthesis, (0, 0)))
        return PlannedWork(added * run.synthesis.batch_size, added, updates, total_steps(run, config.new_images))
    if isinstance(run, TransferConfig):
        return PlannedWork(steps=Epochs(config.new_images, run.student.batch_size, run.epochs).total_steps)
    if isinstance(run, ContinualConfig):
        return _of_continual(run)
    return PlannedWork()


def _of_continual(run: ContinualConfig) -> PlannedWork:
    """Return a course's work; a step is counted as half a batch of old and half of new images, equal in number."""
    known, work = run.teacher.classes, PlannedWork()
    for step in run.steps:
        images = known * run.images_per_class
        batches = -(-images // run.synthesis.batch_size)
        updates = batches * sum(stage.iterations for stage in stages_of(run.synthesis, (0, 0)))
        learned = Epochs(len(step.classes) * run.images_per_class, run.student.batch_size, run.epochs).total_steps
        made = METHODS[run.methods[0]].images == "made"
        work += PlannedWork(images, batches, updates, learned) if made else PlannedWork(steps=learned)
        known += len(step.classes)
    return work


def batch_seconds(config: SynthesisConfig, teacher: Teacher) -> float:
    """Measure the seconds of a batch of images: one update of each stage, times the stage's updates."""
    stages = stages_of(config, (teacher.config.input_shape[1], teacher.config.input_shape[2]))
    short = replace(
        config,
        iterations=MEASURED,
        stages=tuple(replace(stage, iterations=MEASURED) for stage in config.stages),
        warm_up=0,
        compile="off",
    )
    moments: list[float] = []

    def note_moment(_: float) -> None:
        if teacher.device.type == "cuda":
            torch.cuda.synchronize(teacher.device)
        moments.append(time.perf_counter())

    targets = torch.arange(config.batch_size) % teacher.config.classes
    rival = teacher.network if short.competes else None
    SYNTHESIZERS[config.method](teacher, short).synthesize(Request(targets, 0, rival, None, note_moment))
    taken = np.diff(moments).tolist()
    return sum(
        stage.iterations * median(taken[index * MEASURED : (index + 1) * MEASURED - 1])
        for index, stage in enumerate(stages)
    )


def step_seconds(config: StudentConfig, teacher: Teacher) -> float:
    """Measure the seconds of a distillation step."""
    if config.network == "teacher":
        config = replace(config, network=teacher.config.network, arguments=teacher.config.arguments)
    student = build_student(config, teacher.config).to(teacher.device)
    distiller = Distiller(teacher, student, config, MEASURED, 0)
    images = torch.zeros(config.batch_size, *teacher.config.input_shape, dtype=torch.uint8, device=teacher.device)
    taken = []
    for step in range(MEASURED):
        began = time.perf_counter()
        float(distiller.step(images, step)[0])  # which waits for it
        taken.append(time.perf_counter() - began)
    return median(taken[1:])
