"""Each synthesizer once, a distillation step and a latency, all uncompiled: checks that each returns a valid result."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from raydream.config import StudentConfig, ViewConfig
from raydream.device_check.steps import Figures, StepError
from raydream.device_check.subjects import Subject, find_subject
from raydream.errors import first_line
from raydream.evaluation.latency import measure_latencies
from raydream.networks import build_network
from raydream.students.distillation import Distiller
from raydream.synthesis import SYNTHESIZERS, Request

UPDATES = 4


def smoke(device: str) -> Figures:
    """Run all parts in turn; returns figures of each.

    Raises:
        StepError: a part failed; the message names all that did.
    """
    subject = replace(find_subject("resnet20", device), updates=UPDATES)
    tried: dict[str, Callable[[], Figures]] = {
        **{method: lambda method=method: _synthesizer(subject, method) for method in SYNTHESIZERS},  # type: ignore[misc]
        "distillation": lambda: _distillation(subject),
        "latency": lambda: _latency(subject),
    }
    figures: Figures = subject.described
    wrong: list[str] = []
    for name, attempt in tried.items():
        try:
            figures[name] = attempt()
        except Exception as error:  # whatever a device raises; the others are still worth trying
            wrong.append(f"{name}: {type(error).__name__}: {first_line(error)}")
    if wrong:
        raise StepError("; ".join(wrong), figures)
    return figures


def distiller(subject: Subject, steps: int) -> Distiller:
    """Build the distiller of a student like the teacher, with all augmentations."""
    torch.manual_seed(1)
    described = subject.teacher.config
    student = build_network(described.network, described.arguments, described.input_shape[0], described.classes)
    view = ViewConfig(flip=True, zoom=0.1, rotation=10, brightness=0.1, contrast=0.1, cutout=2, mixup=0.2)
    config = StudentConfig(batch_size=subject.images, learning_rate=0.01, view=view, ema=0.9)
    return Distiller(subject.teacher, student.to(subject.device), config, steps, run_seed=0)


def random_images(subject: Subject) -> torch.Tensor:
    """Draw random images, uint8 [images,C,H,W], on the CPU like those of a buffer."""
    return torch.randint(0, 256, (subject.images, *subject.teacher.config.input_shape), dtype=torch.uint8)


def _synthesizer(subject: Subject, method: str) -> Figures:
    student = build_network(
        subject.teacher.config.network, subject.teacher.config.arguments, subject.teacher.config.input_shape[0], 10
    )
    request = Request(subject.targets(), seed=0, student=student.to(subject.device).eval())
    made = SYNTHESIZERS[method](subject.teacher, subject.synthesis(method)).synthesize(request)
    shape = (subject.images, *subject.teacher.config.input_shape)
    _expect(made.images.shape == shape and made.images.dtype == torch.uint8, f"images are {tuple(made.images.shape)}")
    _expect(all(map(math.isfinite, made.losses.values())), f"losses are {made.losses}")
    _expect(len({int(value) for value in made.images.flatten()[:1000]}) > 1, "all pixels are equal")
    _expect(not made.notes and not made.restarts, f"{made.restarts} restarts, notes {made.notes}")
    return {"losses": made.losses}


def _distillation(subject: Subject) -> Figures:
    learner, images = distiller(subject, UPDATES), random_images(subject)
    before = [weights.detach().clone() for weights in learner.learned.parameters()]
    found = [learner.step(images, step) for step in range(UPDATES)]
    losses, shares = ([float(values[index]) for values in found] for index in range(2))
    _expect(all(map(math.isfinite, losses)) and all(0 <= share <= 1 for share in shares), f"losses are {losses}")
    moved = any(not torch.equal(old, new) for old, new in zip(before, learner.learned.parameters(), strict=True))
    _expect(moved, "no weight has changed")
    return {"first_loss": losses[0], "last_loss": losses[-1]}


def _latency(subject: Subject) -> Figures:
    network, shape = subject.teacher.network, subject.teacher.config.input_shape
    (found,) = measure_latencies([network], shape, subject.images, passes=10)
    _expect(0 < found.low_s <= found.median_s <= found.high_s, f"latencies are {found}")
    return {"median_s": found.median_s, "low_s": found.low_s, "high_s": found.high_s}


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise StepError(otherwise, {})
