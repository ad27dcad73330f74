"""Inversion: gradient descent on pixels until the teacher sees in them what the objective asks for."""

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from raydream.config import SynthesisConfig
from raydream.errors import SynthesisError
from raydream.losses.feature_statistics import FeatureObserver
from raydream.losses.objective import Objective, Observation
from raydream.seeds import derive_seed
from raydream.teachers.teacher import Teacher

log = logging.getLogger(__name__)

MAX_RESTARTS = 3
CURVE_POINTS = 20


@dataclass(frozen=True)
class Request:
    """One batch to make.

    Attributes:
        targets: int64 [N], the class that each image is to show.
        seed: of the first pixels, the jitter and the flips.
        student: a frozen network in eval mode to compete with, or None.
        start: uint8 [N,C,H,W] to start from, or None for N(0, 1).
    """

    targets: Tensor
    seed: int
    student: nn.Module | None = None
    start: Tensor | None = None


@dataclass(frozen=True)
class Synthesis:
    """What a synthesizer returns.

    Attributes:
        images: uint8 [N,C,H,W].
        losses: each term's value at the last update, before its coefficient.
        distances: feature distance of each BN layer at the last update; empty where it is not measured.
        curve: each term over the updates, as (update, value) pairs.
        restarts: how often the batch diverged and was started anew from another seed.
    """

    images: Tensor
    losses: dict[str, float]
    distances: dict[str, float] = field(default_factory=dict)
    curve: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    restarts: int = 0


class Inversion:
    """The loop that all inversions share; a subclass names its terms.

    Args:
        teacher: frozen and in eval mode.
        config: of the synthesis; `coefficients` are read for the terms named in `terms`.
    """

    terms: ClassVar[tuple[str, ...]] = ()

    def __init__(self, teacher: Teacher, config: SynthesisConfig) -> None:
        self._teacher, self._config = teacher, config

    def state_dict(self) -> dict[str, Tensor]:
        """What the synthesizer has learned from batch to batch: nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""

    def synthesize(self, request: Request) -> Synthesis:
        """Make one batch.

        Raises:
            SynthesisError: NaN or infinity again after `MAX_RESTARTS` fresh starts.
        """
        for restart in range(MAX_RESTARTS + 1):
            seed = request.seed if restart == 0 else derive_seed(request.seed, "restart", restart)
            result = self._invert(request, torch.Generator().manual_seed(seed), restart)
            if result is not None:
                return result
            log.warning("inversion from seed %d diverged (NaN or infinity); starting the batch anew", seed)
        raise SynthesisError(
            f"the inversion diverged {MAX_RESTARTS + 1} times from different seeds: "
            f"lower synthesis.learning_rate ({self._config.learning_rate}) or the largest coefficient"
        )

    def _invert(self, request: Request, random: torch.Generator, restarts: int) -> Synthesis | None:
        """One attempt; None where it diverged."""
        config, teacher = self._config, self._teacher
        objective = Objective([t for t in self.terms if t != "competition" or request.student is not None], config)
        x = self._first_pixels(request, random).to(teacher.device).requires_grad_(True)
        targets = request.targets.to(teacher.device)
        optimizer = torch.optim.Adam([x], config.learning_rate, config.betas)
        low, high = teacher.normalisation.valid_range()
        curve: dict[str, list[tuple[int, float]]] = {name: [] for name in objective.weights}
        every = max(1, config.iterations // CURVE_POINTS)
        distances: dict[str, float] = {}
        with _observer(teacher.network, "feature" in objective.weights) as observer:
            for iteration in range(config.iterations):
                optimizer.param_groups[0]["lr"] = config.learning_rate * decay_factor(config, iteration)
                view = random_view(x, config, random)
                seen = Observation(
                    images=view,
                    targets=targets,
                    teacher_logits=teacher.network(view),
                    distances=observer.distances() if observer else None,
                    student_logits=request.student(view) if "competition" in objective.weights else None,  # type: ignore[misc]
                )
                total, values = objective(seen)
                (x.grad,) = torch.autograd.grad(total, x)
                optimizer.step()
                if config.clip:
                    with torch.no_grad():
                        x.clamp_(low, high)
                last = iteration == config.iterations - 1
                if last or iteration % every == 0:
                    # Reading values waits for the device, so it is done at few updates.
                    if not math.isfinite(total.item()) or not bool(x.isfinite().all()):
                        return None
                    for name, value in values.items():
                        curve[name].append((iteration, value.item()))
                    if last and observer and seen.distances is not None:
                        distances = dict(zip(observer.names, seen.distances.tolist(), strict=True))
        losses = {name: points[-1][1] for name, points in curve.items()}
        return Synthesis(teacher.normalisation.quantise(x), losses, distances, curve, restarts)

    def _first_pixels(self, request: Request, random: torch.Generator) -> Tensor:
        if request.start is not None:
            started: Tensor = self._teacher.normalisation(request.start)
            return started
        return torch.randn(len(request.targets), *self._teacher.config.input_shape, generator=random)


def decay_factor(config: SynthesisConfig, iteration: int) -> float:
    """What the learning rate is multiplied by at an update: 1, or half a cosine from 1 towards 0."""
    if config.decay == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * iteration / config.iterations))


def random_view(x: Tensor, config: SynthesisConfig, random: torch.Generator) -> Tensor:
    """The images as one update sees them: rolled by up to `jitter` pixels each way, mirrored half of the time.

    Args:
        x: [N,C,H,W]; the whole batch gets the same view, as in the published code.
    """
    if config.jitter:
        down, right = torch.randint(-config.jitter, config.jitter + 1, (2,), generator=random).tolist()
        x = torch.roll(x, (down, right), dims=(2, 3))
    if config.flip and bool(torch.rand((), generator=random) < 0.5):
        x = x.flip(3)
    return x


@contextlib.contextmanager
def _observer(network: nn.Module, needed: bool) -> Iterator[FeatureObserver | None]:
    if not needed:
        yield None
        return
    with FeatureObserver(network) as observer:
        yield observer
