"""The steps of the device check that need Ray: a student and generators, placed as a run places them.

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
from ray.util.queue import Queue

from raydream.config import DistillConfig, GeneratorsConfig, StudentConfig, SynthesizeConfig
from raydream.device_check.smoke import random_images
from raydream.device_check.steps import Figures, StepError
from raydream.device_check.subjects import find_subject
from raydream.runtime.generator import GeneratorPlan
from raydream.runtime.learner import Learner, Seat
from raydream.runtime.messages import drain
from raydream.runtime.placement import Nodes
from raydream.runtime.pool import Finished, GeneratorPool
from raydream.runtime.session import ray_session
from raydream.runtime.training import StudentTraining
from raydream.store.folders import folder_at
from raydream.store.records import BatchId, Order
from raydream.teachers.teacher import to_arrays

STEPS = 4
UPDATES = 20
GENERATORS = 2
POLL_S = 0.2


@dataclass(frozen=True)
class CheckPlan:
    """Plan of a student that takes a few steps on one batch of random images; see `TrainPlan`."""

    config: DistillConfig
    teacher: list[ray.ObjectRef]
    images: np.ndarray
    reports: Queue
    who = "the student"

    @property
    def total_steps(self) -> int:
        """Return the total number of distillation steps."""
        return STEPS

    @property
    def seats(self) -> StudentConfig:
        """Return the settings of the worker."""
        return self.config.student

    @property
    def streams(self) -> bool:
        """Return False: Ray Data streams nothing."""
        return False

    def workers_that_fit(self, nodes: Nodes) -> int:
        """Return 1: Ray places the single worker."""
        return 1

    def datasets(self, step: int) -> dict[str, Any]:
        """Return no datasets."""
        return {}

    def work(self, seat: Seat) -> None:
        """Train, save a checkpoint, and report the losses and the devices."""
        learner = Learner.begin(self.config, self.teacher[0], STEPS, seat)
        images = torch.from_numpy(self.images.copy())
        losses = [float(learner.learning.step(images, step)[0]) for step in range(learner.step, STEPS)]
        learner.save(STEPS)
        placed = {str(weights.device) for weights in learner.learning.student.parameters()}
        self.reports.put({"losses": losses, "devices": sorted(placed)})


def student(device: str) -> Figures:
    """Train a student with one worker, on a whole GPU if there is one.

    Raises:
        StepError: its losses are not finite, or its weights are not on the GPU.
    """
    subject = find_subject("resnet20", device)
    gpus = float(subject.device.type == "cuda")
    described = subject.teacher.config
    config = DistillConfig(
        teacher=described,
        student=StudentConfig(
            network=described.network, arguments=described.arguments, batch_size=subject.images, cpus=0.5, gpus=gpus
        ),
    )
    with tempfile.TemporaryDirectory() as folder, ray_session(_anything, [config.student], "device-check"):
        reports = Queue(actor_options={"num_cpus": 0})
        weights = ray.put(to_arrays(subject.teacher.network))
        plan = CheckPlan(config, [weights], random_images(subject).numpy(), reports)
        training = StudentTraining(plan, folder_at(Path(folder) / "checkpoints"))
        while not training.done():
            time.sleep(POLL_S)
        (told,) = [each for each in drain(reports) if isinstance(each, dict)]
    figures: Figures = {"gpus": gpus, **told}
    if not np.isfinite(told["losses"]).all():
        raise StepError("the student's losses are not finite", figures)
    if any(place.partition(":")[0] != subject.device.type for place in told["devices"]):
        raise StepError(f"the student is on {', '.join(told['devices'])}", figures)
    return figures


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
        reports = Queue(actor_options={"num_cpus": 0})
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
