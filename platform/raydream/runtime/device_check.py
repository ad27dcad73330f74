"""The steps of the device check that need Ray: students and generators, placed as a run places them.

`raydream/device_check/steps.py` lists them. Without a GPU they reserve none, which the tests use.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from raydream.config import DistillConfig, GeneratorsConfig, StudentConfig, SynthesizeConfig
from raydream.device_check.smoke import random_images
from raydream.device_check.steps import Figures, StepError
from raydream.device_check.subjects import find_subject
from raydream.runtime.generator import GeneratorPlan
from raydream.runtime.learner import Learner, Seat
from raydream.runtime.messages import ReportQueue
from raydream.runtime.placement import Nodes
from raydream.runtime.pool import Finished, GeneratorPool
from raydream.runtime.session import ray_session
from raydream.runtime.training import StudentTraining
from raydream.store.folders import folder_at
from raydream.store.records import BatchId, Order
from raydream.teachers.teacher import to_arrays

STEPS = 4
UPDATES = 20
WORKERS = 2
GENERATORS = 2
POLL_S = 0.2


@dataclass(frozen=True)
class CheckPlan:
    """Plan of a student that takes a few steps on random images, split among its workers; see `TrainPlan`."""

    config: DistillConfig
    teacher: list[ray.ObjectRef]
    images: np.ndarray
    reports: ReportQueue
    who = "the student"

    @property
    def total_steps(self) -> int:
        """Return the total number of distillation steps."""
        return STEPS

    @property
    def seats(self) -> StudentConfig:
        """Return the settings of the workers."""
        return self.config.student

    @property
    def streams(self) -> bool:
        """Return False: Ray Data streams nothing."""
        return False

    def workers_that_fit(self, nodes: Nodes) -> int:
        """Return the number of workers: all, as Ray waits for missing resources until the step's deadline."""
        return self.seats.workers

    def datasets(self, step: int) -> dict[str, Any]:
        """Return no datasets."""
        return {}

    def work(self, seat: Seat) -> None:
        """Train, save a checkpoint, and report the losses, the device and the size of the weights."""
        learner = Learner.begin(self.config, self.teacher[0], STEPS, seat)
        images = torch.from_numpy(self.images[seat.rank :: seat.workers].copy())
        losses = [float(learner.learning.step(images, step)[0]) for step in range(learner.step, STEPS)]
        learner.save(STEPS)
        weights = list(learner.learning.student.parameters())
        size = float(sum(weight.detach().double().abs().sum() for weight in weights))
        devices = sorted({str(weight.device) for weight in weights})
        self.reports.put({"rank": seat.rank, "losses": losses, "devices": devices, "weights": size})


def student(device: str) -> Figures:
    """Train a student with one worker, on a whole GPU if there is one.

    Raises:
        StepError: its losses are not finite, or its weights are not on the GPU.
    """
    gpus, (reported,) = _trained(device, workers=1)
    return {"gpus": gpus, "losses": reported["losses"], "devices": reported["devices"]}


def workers(device: str) -> Figures:
    """Train a student with two workers of Ray Train, each on half a GPU if there is one.

    Raises:
        StepError: a worker's losses are not finite, its weights are not on the GPU, or the two have other weights, as
            they would have if their gradients were not averaged.
    """
    gpus, reported = _trained(device, workers=WORKERS)
    figures: Figures = {"gpus": gpus, "workers": reported}
    if len(reported) != WORKERS or len({each["weights"] for each in reported}) > 1:
        raise StepError(f"{len(reported)} of {WORKERS} workers reported, and their weights should be equal", figures)
    return figures


def _trained(device: str, workers: int) -> tuple[float, list[Figures]]:
    """Train a student; returns the GPUs that each worker reserved, and the report of each, by rank."""
    subject = find_subject("resnet20", device)
    gpus = 1 / workers if subject.device.type == "cuda" else 0.0
    described = subject.teacher.config
    config = DistillConfig(
        teacher=described,
        student=StudentConfig(
            network=described.network,
            arguments=described.arguments,
            batch_size=subject.images,
            workers=workers,
            cpus=0.5,
            gpus=gpus,
        ),
    )
    with tempfile.TemporaryDirectory() as folder, ray_session(_anything, [config.student], "device-check"):
        reports = ReportQueue()
        weights = ray.put(to_arrays(subject.teacher.network))
        plan = CheckPlan(config, [weights], random_images(subject).numpy(), reports)
        training = StudentTraining(plan, folder_at(Path(folder) / "checkpoints"))
        while not training.done():
            time.sleep(POLL_S)
        reported = sorted((each for each in reports.take() if isinstance(each, dict)), key=lambda each: each["rank"])
    if not np.isfinite([each["losses"] for each in reported]).all():
        raise StepError("the student's losses are not finite", {"workers": reported})
    devices = sorted({place for each in reported for place in each["devices"]})
    if any(place.partition(":")[0] != subject.device.type for place in devices):
        raise StepError(f"the student is on {', '.join(devices)}", {"workers": reported})
    return gpus, reported


def generators(device: str) -> Figures:
    """Run two generators at once, each on half a GPU if there is one.

    Raises:
        StepError: one of the two made no batch, or a batch was not made as requested.
    """
    subject = replace(find_subject("resnet20", device), updates=UPDATES)
    gpus = 0.5 if subject.device.type == "cuda" else 0.0
    config = SynthesizeConfig(
        teacher=subject.teacher.config,
        synthesis=subject.synthesis(),
        generators=GeneratorsConfig(count=GENERATORS, cpus=0.5, gpus=gpus),
    )
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as path, ray_session(_anything, [config.generators], "device-check"):
        folder = folder_at(Path(path))
        plan = GeneratorPlan(
            "device-check",
            config.device,
            config.teacher,
            config.synthesis,
            None,
            config.generators,
            shards=folder,
            sources=folder,
        )
        reports = ReportQueue()
        pool = GeneratorPool(plan, reports, notes.append, config)
        finished = _made(pool, ray.put(to_arrays(subject.teacher.network)), subject.targets().numpy())
    makers = {done.receipt.provenance.generator for done in finished}
    begun = [done.receipt.started_at for done in finished]
    figures: Figures = {
        "gpus": gpus,
        "generators": sorted(makers),
        "seconds": [done.receipt.seconds for done in finished],
        "begun_within_s": max(begun) - min(begun),
        "notes": notes,
    }
    if len(makers) != GENERATORS or notes:
        raise StepError(f"{len(makers)} of {GENERATORS} generators made a batch; notes: {'; '.join(notes)}", figures)
    return figures


def _made(pool: GeneratorPool, teacher: ray.ObjectRef, targets: np.ndarray) -> list[Finished]:
    """Return a batch from each generator; the first is ordered when all generators are available."""
    while pool.at_hand < GENERATORS:
        pool.collect(POLL_S, more=True)
    for index in range(GENERATORS):
        pool.start(Order(BatchId(0, index), targets, seed=index), teacher, None, None)
    finished: list[Finished] = []
    while len(finished) < GENERATORS:
        done, lost = pool.collect(POLL_S, more=True)
        finished += done
        if lost:
            raise StepError(f"a generator failed at batch {lost[0]}", {})
    return finished


def _anything(nodes: Nodes) -> None:
    """Check nothing: Ray waits for missing resources until the step's deadline."""
