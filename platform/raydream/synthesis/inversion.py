"""Inversion: gradient descent on pixels, driven by the teacher and the objective."""

import torch
from torch import Tensor
from torch.nn import functional

from raydream.config import SynthesisConfig
from raydream.synthesis.checkpoint import Checkpoint
from raydream.synthesis.engine import Engine
from raydream.synthesis.recorded import Recorded
from raydream.synthesis.request import Request, Synthesis
from raydream.synthesis.stages import Stage, learning_rate, stage_at, stages_of, updates_of
from raydream.synthesis.synthesizer import with_restarts
from raydream.synthesis.view import draw_view
from raydream.teachers.teacher import Teacher


class Inversion:
    """A synthesizer that optimizes the pixels themselves; its variants differ only in their objective's terms.

    See `Synthesizer`.
    """

    def __init__(self, teacher: Teacher, config: SynthesisConfig, batches: int = 1) -> None:
        self._teacher, self._config = teacher, config
        self._stages = stages_of(config, teacher.config.input_shape[1:])
        self.engine = Engine(teacher, config, config.terms, batches)

    def state_dict(self) -> dict[str, Tensor]:
        """Return an empty state: an inversion learns nothing from batch to batch."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Accept the empty state of `state_dict`."""

    def synthesize(self, request: Request) -> Synthesis:
        """Make one batch; see `Synthesizer.synthesize`."""
        return with_restarts(self._invert, request, "synthesis.learning_rate", self._config.learning_rate)

    def _invert(self, request: Request, random: torch.Generator, restarts: int) -> Synthesis | None:
        """Make one attempt; None where it diverged."""
        gradient = self.engine.gradient(request.student)
        targets = request.targets.to(self._teacher.device)
        pixels = _Pixels(self._teacher, self._config, random)
        recorded, resumed = Recorded(updates_of(self._config)), request.checkpoint
        if resumed is None:
            x = pixels.first(request, self._stages[0])
        else:
            recorded.restore(resumed.record)
            x = pixels.resumed(request, resumed, stage_at(self._stages, recorded.update - 1)[0])
        done = recorded.update  # of the next stage's updates and those after them
        for stage in self._stages:
            if done >= stage.iterations:
                done -= stage.iterations
                continue
            given = pixels.resized(x, stage), targets, gradient, stage, pixels.bounds
            update = self.engine.graphs.updates(*given)
            x = update.pixels
            if resumed is not None and done:
                update.restore(resumed)
            for iteration in range(done, stage.iterations):
                view = draw_view(stage.jitter, self._config.flip, random)
                evaluation = update(view, learning_rate(self._config, stage, iteration))
                if recorded.is_due() and not recorded.record(evaluation, x):
                    return None
                recorded.advance(request, restarts, random, update.optimizer)
            done = 0
        images = pixels.quantize(x).contiguous()
        return recorded.synthesis(images, gradient.layers, restarts, gradient.take_notes())


class _Pixels:
    """The images of one attempt on the canvas (see `Normalization.canvas`), from their first values on."""

    def __init__(self, teacher: Teacher, config: SynthesisConfig, random: torch.Generator) -> None:
        self._teacher, self._random = teacher, random
        self._canvas = teacher.normalization.canvas()
        self.quantize = self._canvas.quantize
        self.bounds = self._canvas.valid_range() if config.clip else None

    def first(self, request: Request, stage: Stage) -> Tensor:
        channels = self._teacher.config.input_shape[0]
        if request.start is None:
            noise = torch.randn(len(request.targets), channels, *stage.size, generator=self._random)
            return noise.to(self._teacher.device)
        started: Tensor = self._canvas(request.start)
        if started.shape[2:] == stage.size:
            return started
        return functional.interpolate(started, stage.size, mode="bilinear", antialias=True)

    def resumed(self, request: Request, checkpoint: Checkpoint, stage: Stage) -> Tensor:
        """Return the pixels of a checkpoint in some stage, and draw on as it did; raises ShardError as `like`."""
        checkpoint.restore_random(self._random)
        shape = len(request.targets), self._teacher.config.input_shape[0], *stage.size
        return checkpoint.like("parameter.0", torch.empty(shape, device=self._teacher.device))

    def resized(self, x: Tensor, stage: Stage) -> Tensor:
        if x.shape[2:] != stage.size:
            x = functional.interpolate(x.detach(), stage.size, mode=stage.upsampling)
        return x.detach().contiguous(memory_format=torch.channels_last).requires_grad_(True)
