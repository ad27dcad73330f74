"""Inversion: gradient descent on pixels until the teacher sees in them what the objective asks for."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.compute import choose_dtype, compiling_pays, operations
from raydream.config import SynthesisConfig
from raydream.errors import SynthesisError
from raydream.losses.feature_statistics import ObservedNetwork, frozen_copy
from raydream.losses.objective import Objective
from raydream.seeds import derive_seed
from raydream.synthesis.gradient import Evaluation, PixelGradient
from raydream.synthesis.stages import Stage, learning_rate, stages_of, updates_of
from raydream.synthesis.view import draw_view
from raydream.teachers.teacher import Teacher

log = logging.getLogger(__name__)

OnProgress = Callable[[float], None]

MAX_RESTARTS = 3
CURVE_POINTS = 20


@dataclass(frozen=True)
class Request:
    """One batch to make.

    Attributes:
        targets: int64 [N], the class that each image is to show.
        seed: of the first pixels, the jitter and the flips.
        student: a network to compete with, or None; its weights are copied.
        start: uint8 [N,C,H,W] to start from, or None for N(0, 1).
        on_progress: told after each update which share of them is done, in [0, 1].
    """

    targets: Tensor
    seed: int
    student: nn.Module | None = None
    start: Tensor | None = None
    on_progress: OnProgress = lambda share: None


@dataclass(frozen=True)
class Synthesis:
    """What a synthesizer returns.

    Attributes:
        images: uint8 [N,C,H,W].
        losses: each term's value at the last update, before its coefficient.
        distances: feature distance of each BN layer at the last update; empty where it is not measured.
        curve: each term over the updates of all stages, as (update, value) pairs.
        restarts: how often the batch diverged and was started anew from another seed.
        notes: what did not go as asked (out of memory, no compiler), in sentences.
    """

    images: Tensor
    losses: dict[str, float]
    distances: dict[str, float] = field(default_factory=dict)
    curve: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    restarts: int = 0
    notes: tuple[str, ...] = ()


class Inversion:
    """The loop that all inversions share; a subclass names its terms.

    Keep one for all batches of a process: it keeps what was compiled, and the chunk size that memory allowed.

    Args:
        teacher: frozen and in eval mode; is left as it is.
        config: of the synthesis; `coefficients` are read for the terms named in `terms`.
    """

    terms: ClassVar[tuple[str, ...]] = ()

    def __init__(self, teacher: Teacher, config: SynthesisConfig) -> None:
        self._teacher, self._config = teacher, config
        self._stages = stages_of(config, teacher.config.input_shape[1:])
        self._gradients: dict[bool, PixelGradient] = {}
        self._student: nn.Module | None = None

    def state_dict(self) -> dict[str, Tensor]:
        """What the synthesizer has learned from batch to batch: nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""

    def synthesize(self, request: Request) -> Synthesis:
        """Make one batch.

        Raises:
            SynthesisError: NaN or infinity again after `MAX_RESTARTS` fresh starts, or a single image that does not
                fit into memory.
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
        gradient = self._gradient(request)
        targets = request.targets.to(self._teacher.device)
        pixels = _Pixels(self._teacher, self._config, random)
        x = pixels.first(request, self._stages[0])
        recorded = _Recorded(updates_of(self._config))
        for stage in self._stages:
            x = pixels.resized(x, stage)
            optimizer = torch.optim.Adam([x], stage.learning_rate, stage.betas, fused=True)
            for iteration in range(stage.iterations):
                optimizer.param_groups[0]["lr"] = learning_rate(self._config, stage, iteration)
                view = draw_view(stage.jitter, self._config.flip, random)
                evaluation = gradient(view(x.detach()), targets)
                # Fused Adam goes through memory: pixels and gradient must lie in it in the same order.
                x.grad = view.back(evaluation.gradient).contiguous()
                optimizer.step()
                pixels.clip(x)
                if recorded.is_due() and not recorded.record(evaluation, x):
                    return None
                request.on_progress(recorded.share)
                recorded.update += 1
        images = self._teacher.normalisation.quantise(x)
        return recorded.synthesis(images, gradient.layers, restarts, gradient.take_notes())

    def _gradient(self, request: Request) -> PixelGradient:
        """Of this request's objective; the same for all requests with a student, and for all without."""
        competes = request.student is not None and "competition" in self.terms
        competes = competes and self._config.coefficients.competition > 0
        if request.student is not None and competes:
            if self._student is None:
                self._student = frozen_copy(request.student).to(self._teacher.device)
            # Into the same network, as torch.compile would take another one for new code.
            self._student.load_state_dict(request.student.state_dict())
        if competes not in self._gradients:
            self._gradients[competes] = self._build(len(request.targets), competes)
        return self._gradients[competes]

    def _build(self, count: int, competes: bool) -> PixelGradient:
        config, device = self._config, self._teacher.device
        objective = Objective([term for term in self.terms if term != "competition" or competes], config)
        observe = objective.has("features")
        teacher = ObservedNetwork(self._teacher.network) if observe else frozen_copy(self._teacher.network)
        student = self._student if competes else None
        shape = (count, *self._teacher.config.input_shape)
        updates = updates_of(config)
        networks = [self._teacher.network, *([student] if student is not None else [])]
        work = sum(operations(network, shape, updates, device) for network in networks)
        compiled = compiling_pays(config, work, device, torch.get_num_threads())
        return PixelGradient(
            objective, teacher, student, choose_dtype(config.precision, device), compiled, config.chunk_size
        )


class _Pixels:
    """The images of one attempt, from their first values on."""

    def __init__(self, teacher: Teacher, config: SynthesisConfig, random: torch.Generator) -> None:
        self._teacher, self._random = teacher, random
        self._bounds = teacher.normalisation.valid_range() if config.clip else None

    def first(self, request: Request, stage: Stage) -> Tensor:
        channels = self._teacher.config.input_shape[0]
        if request.start is None:
            noise = torch.randn(len(request.targets), channels, *stage.size, generator=self._random)
            return noise.to(self._teacher.device)
        started: Tensor = self._teacher.normalisation(request.start)
        if started.shape[2:] == stage.size:
            return started
        return functional.interpolate(started, stage.size, mode="bilinear", antialias=True)

    def resized(self, x: Tensor, stage: Stage) -> Tensor:
        if x.shape[2:] != stage.size:
            x = functional.interpolate(x.detach(), stage.size, mode=stage.upsampling)
        return x.detach().contiguous().requires_grad_(True)

    @torch.no_grad()
    def clip(self, x: Tensor) -> None:
        if self._bounds is not None:
            x.clamp_(*self._bounds)


class _Recorded:
    """What is told of one attempt. Reading a value waits for the device, so it is done at few updates."""

    def __init__(self, updates: int) -> None:
        self.update = 0
        self._last, self._every = updates - 1, max(1, updates // CURVE_POINTS)
        self._curve: dict[str, list[tuple[int, float]]] = {}
        self._distances: list[float] = []

    @property
    def share(self) -> float:
        """Of the updates, done."""
        return (self.update + 1) / (self._last + 1)

    def is_due(self) -> bool:
        return self.update == self._last or self.update % self._every == 0

    def record(self, evaluation: Evaluation, x: Tensor) -> bool:
        """Note the values of an update; False where they are no longer finite."""
        if not math.isfinite(evaluation.total.item()) or not bool(x.isfinite().all()):
            return False
        for name, value in evaluation.values.items():
            self._curve.setdefault(name, []).append((self.update, value.item()))
        if evaluation.distances is not None:
            self._distances = evaluation.distances.tolist()
        return True

    def synthesis(self, images: Tensor, names: list[str], restarts: int, notes: tuple[str, ...]) -> Synthesis:
        losses = {name: points[-1][1] for name, points in self._curve.items()}
        distances = dict(zip(names, self._distances, strict=True))
        return Synthesis(images, losses, distances, self._curve, restarts, notes)
