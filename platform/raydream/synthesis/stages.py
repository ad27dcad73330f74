"""Stages: the resolutions of an inversion, and the learning rate during each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raydream.config import SynthesisConfig


@dataclass(frozen=True)
class Stage:
    """One stage with all its settings known.

    Attributes:
        size: height and width of the images, pixels.
        iterations: number of updates.
        learning_rate: the peak learning rate; the generator network's, where the method has one.
        betas: Adam's; each stage starts with a fresh Adam.
        jitter: largest shift, in pixels.
        upsampling: how the previous stage's images are enlarged to this stage's size.
    """

    size: tuple[int, int]
    iterations: int
    learning_rate: float
    betas: tuple[float, float]
    jitter: int
    upsampling: str


def stages_of(config: SynthesisConfig, size: tuple[int, int]) -> list[Stage]:
    """Return the stages of a synthesis; settings that a stage omits are taken from the synthesis.

    Args:
        size: height and width of the teacher's images.
    """
    if not config.stages:
        own = (config.generator.learning_rate, config.generator_betas)
        rate, betas = own if config.learns else (config.learning_rate, config.betas)
        return [Stage(size, config.iterations, rate, betas, config.jitter, "nearest")]
    return [
        Stage(
            size=stage.size or size,
            iterations=stage.iterations or config.iterations,
            learning_rate=stage.learning_rate or config.learning_rate,
            betas=stage.betas or config.betas,
            jitter=config.jitter if stage.jitter is None else stage.jitter,
            upsampling=stage.upsampling,
        )
        for stage in config.stages
    ]


def updates_of(config: SynthesisConfig) -> int:
    """Return the number of updates of the pixels, or of the generator network, per batch over all stages."""
    return sum(stage.iterations for stage in stages_of(config, (1, 1)))


def learning_rate(config: SynthesisConfig, stage: Stage, iteration: int) -> float:
    """Return a stage's learning rate at one of its updates: a linear warm-up, then constant or half a cosine to 0.

    This schedule is for pixels; a generator network's learning rate is constant.
    """
    if config.learns:
        return stage.learning_rate
    if iteration < config.warm_up:
        return stage.learning_rate * (iteration + 1) / config.warm_up
    if config.decay == "constant":
        return stage.learning_rate
    begun = min(config.warm_up, stage.iterations - 1)
    share = (iteration - begun) / (stage.iterations - begun)
    return stage.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))


def learning_rate_at(config: SynthesisConfig, update: int) -> float:
    """Return the learning rate at an update counted over all stages."""
    return learning_rate(config, *stage_at(stages_of(config, (1, 1)), update))


def stage_at(stages: Sequence[Stage], update: int) -> tuple[Stage, int]:
    """Return the stage of an update that is counted over all stages, and its number within that stage."""
    for stage in stages:
        if update < stage.iterations:
            return stage, update
        update -= stage.iterations
    raise ValueError(f"there is no update {update} after the last stage")
