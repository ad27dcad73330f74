"""A short DeepInversion of a teacher: does it get anywhere, which term pulls how hard, what does it cost?"""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from raydream.config import SynthesisConfig
from raydream.config.synthesis import METHODS
from raydream.errors import SynthesisError
from raydream.networks.batch_norm import keeps_statistics
from raydream.synthesis.balance import own_terms
from raydream.synthesis.inversion import Inversion
from raydream.synthesis.request import Request
from raydream.synthesis.stages import updates_of
from raydream.targets import choose_targets
from raydream.teachers.teacher import Teacher

UPDATES = 50
"""updates of the pixels in a probe"""
PROBE_IMAGES = 32
"""most images in a probe"""
SHARE_OF_MEMORY = 0.5
"""of what is free that a batch may take"""
BATCHES = (256, 128, 64, 32, 16, 8, 4, 2)
"""batch sizes that are suggested, the first that fits (the paper: 256)"""
RATES = (0.05, 0.1, 0.2)
"""learning rates that are tried, in units of the canvas (the paper: 0.05)"""


@dataclass(frozen=True)
class Probe:
    """The findings of a short inversion.

    Attributes:
        method: synthesizer; deep_inversion, or deepdream where no BN layer keeps statistics.
        images, updates: number of each.
        learning_rate, coefficients: that it ran with.
        target_share: share of its images that the teacher classifies as their target.
        losses: each term before its coefficient, at the last update.
        diverged: whether it reached NaN or infinity at every restart; the figures are then those of noise.
        seconds_per_update: of these images, the first update left out.
    """

    method: str
    images: int
    updates: int
    learning_rate: float
    coefficients: dict[str, float]
    target_share: float
    losses: dict[str, float]
    diverged: bool
    seconds_per_update: float


def probe_settings(config: SynthesisConfig, network: nn.Module, updates: int) -> SynthesisConfig:
    """Return the settings of a probe: those configured, in one stage, uncompiled, in small batches."""
    method = METHODS[config.method].without_student or config.method
    if METHODS[method].learns or ("feature" in METHODS[method].terms and not keeps_statistics(network)):
        method = "deep_inversion" if keeps_statistics(network) else "deepdream"
    return replace(
        config,
        method=method,
        iterations=updates,
        stages=(),
        batch_size=min(config.batch_size, PROBE_IMAGES),
        compile="off",
        start="noise",
    )


def run_probe(teacher: Teacher, config: SynthesisConfig, seed: int) -> Probe:
    """Invert one small batch; `config` is from `probe_settings`."""
    targets = torch.from_numpy(choose_targets(config.targets, teacher.config.classes, 0, config.batch_size, seed))
    moments: list[float] = []
    request = Request(targets, seed, on_progress=lambda share: moments.append(time.perf_counter()))
    inversion = Inversion(teacher, config)
    share, losses, diverged = 0.0, {}, False
    try:
        made = inversion.synthesize(request)
        losses = made.losses
        share = float((inversion.engine.logits(made.images).argmax(1).cpu() == targets).float().mean())
    except SynthesisError:
        diverged = True
    seconds = (moments[-1] - moments[0]) / (len(moments) - 1) if len(moments) > 1 else 0.0
    coefficients = {name: float(getattr(config.coefficients, name)) for name in own_terms(config)}
    return Probe(
        config.method,
        len(targets),
        config.iterations,
        config.learning_rate,
        coefficients,
        share,
        losses,
        diverged,
        seconds,
    )


def kept_bytes(teacher: Teacher, images: int) -> int:
    """Measure the bytes that a pass through the network keeps for its gradient, with the weights and buffers.

    This is most of what an update takes at its peak; it counts each piece of memory once, on any device.
    """
    held: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        kept.append(value)  # so that no later piece of memory has its address
        return value

    kept: list[Tensor] = []
    x = torch.zeros(images, *teacher.config.input_shape, device=teacher.device).requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        teacher.network(x)
    for value in teacher.network.state_dict().values():
        held[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(held.values())


@dataclass(frozen=True)
class SynthesisCost:
    """The cost of a batch of the suggested size.

    Attributes:
        batch_size: images.
        seconds_per_batch: of all configured updates, uncompiled.
        memory_bytes: see `kept_bytes`.
    """

    batch_size: int
    seconds_per_batch: float
    memory_bytes: int


def cost_of(teacher: Teacher, config: SynthesisConfig, probe: Probe, free_bytes: int) -> SynthesisCost:
    """Estimate what a batch costs, at the largest of `BATCHES` that takes `SHARE_OF_MEMORY` of the free memory at most.

    Args:
        config: the user's settings, which say the number of updates.
        free_bytes: of the device.
    """
    one, two = kept_bytes(teacher, 1), kept_bytes(teacher, 2)
    each, fixed = two - one, 2 * one - two
    allowed = SHARE_OF_MEMORY * free_bytes
    size = next((size for size in BATCHES if fixed + size * each <= allowed), 1)
    seconds = probe.seconds_per_update * size / probe.images * updates_of(config)
    return SynthesisCost(size, seconds, fixed + size * each)
