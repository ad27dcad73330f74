"""Data-free quantization: calibrate a network on images, and recover its accuracy at few bits by distillation."""

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from raydream.applications.recovery import Recovery, RecoveryStage, StageReport, total_steps_of
from raydream.config import QuantizeConfig, TeacherConfig
from raydream.config.network_names import QUANTIZED
from raydream.data.sources import evenly_spread
from raydream.networks import build_teacher
from raydream.networks.quantized import Bits, bits_text, parse_bits, quantized, quantizers_of
from raydream.quantization.layers import bits_by_layer, layers_in_order
from raydream.quantization.ranges import calibrated, observe
from raydream.store.folders import Folder
from raydream.store.shards import ShardStore
from raydream.students.distillation import Distiller
from raydream.teachers.teacher import Teacher

__all__ = [
    "CHECKPOINT",
    "Quantizing",
    "RecoveryStage",
    "StageReport",
    "build_quantized",
    "described",
    "stages_of",
    "total_steps",
]

CHECKPOINT = "quantized.safetensors"
CHUNK = 64
"""images that pass through the network together while it calibrates"""


def stages_of(config: QuantizeConfig) -> list[RecoveryStage]:
    """Return all stages in order; they depend only on the configuration."""
    stages, additions, last = [RecoveryStage("calibrate", 0)], config.additions, config.student.decay
    if config.quantization.method == "distillation":
        stages.append(RecoveryStage("distill", 0, config.quantization.epochs, last))
        for added in range(additions.rounds):
            stages += [RecoveryStage("add", added), RecoveryStage("distill", added + 1, additions.epochs, last)]
    return [stage for stage in stages if stage.kind != "distill" or stage.epochs]


def total_steps(config: QuantizeConfig, images: int) -> int:
    """Return the number of distillation steps of the whole run, on the given and the added images."""
    return total_steps_of(config, stages_of(config), images)


def described(teacher: TeacherConfig, bits: Mapping[str, tuple[int, int]]) -> TeacherConfig:
    """Describe a quantized teacher as a network that `build_network` builds, without a source of weights."""
    arguments = {**teacher.arguments, "network": teacher.network, "bits": bits_text(bits)}
    return replace(teacher, network=QUANTIZED, arguments=arguments, checkpoint=None)


def build_quantized(teacher: TeacherConfig, bits: str) -> nn.Module:
    """Build a teacher's network that computes with few bits, without its weights.

    Args:
        bits: bits of its layers, as `bits_text` writes them.
    """
    return quantized(build_teacher(teacher), parse_bits(bits)).eval()


def bits_of(config: QuantizeConfig, teacher: Teacher) -> Bits:
    """Return the bits of each layer of a teacher that a configuration quantizes."""
    wanted = config.quantization
    layers = layers_in_order(teacher.network, config.teacher.input_shape)
    return bits_by_layer(layers, wanted.weights, wanted.activations, wanted.edges, wanted.kept)


def calibration_rows(count: int, most: int) -> np.ndarray:
    """Return the rows that calibrate: at most `most` of `count`, evenly spread from the first to the last."""
    return np.array(evenly_spread(range(count), max(2, most)))[:most]


def as_seen(teacher: Teacher, images: np.ndarray) -> Iterable[Tensor]:
    """Yield uint8 images [N,C,H,W] in batches, normalized as the teacher's input."""
    for first in range(0, len(images), CHUNK):
        yield teacher.normalization(torch.from_numpy(np.array(images[first : first + CHUNK])))


class Quantizing(Recovery[QuantizeConfig]):
    """A quantizing run: the same arguments give the same network, however often the run is stopped and resumed.

    Args:
        config: the run's configuration; settings of processes are ignored.
        teacher: floating-point, on the device to compute on; stays unchanged.
        images: uint8 [N,C,H,W], all of them.
        folder, store, report, on_work: see `Recovery`.
    """

    name, checkpoint = "quantizing", CHECKPOINT

    def __init__(
        self,
        config: QuantizeConfig,
        teacher: Teacher,
        images: np.ndarray,
        folder: Folder | None = None,
        store: ShardStore | None = None,
        report: Callable[[StageReport], None] = lambda ended: None,
        on_work: Callable[[int], None] = lambda step: None,
    ) -> None:
        network = copy.deepcopy(teacher.network)
        super().__init__(config, teacher, images, stages_of(config), network, folder, store, report, on_work)
        self.bits = bits_of(config, teacher)

    def change(self, stage: RecoveryStage) -> None:
        wanted, state = self._config.quantization, self._state
        images = self._images[calibration_rows(len(self._images), wanted.calibration_images)]
        batches = functools.partial(as_seen, self._teacher, images)
        seen = observe(self._teacher.network, self.bits, batches)
        state.network = calibrated(self._teacher.network, self.bits, seen, wanted.simulated_ranges)
        self.report(StageReport(stage, state.network, state.step))

    def distiller(self, stage: RecoveryStage, total_steps: int, seed: int) -> Distiller:
        made = super().distiller(stage, total_steps, seed)
        # Images of a round meet a network that has settled: its statistics stay as they are.
        made.frozen_from = 0 if stage.index else round(self._config.quantization.frozen * total_steps)
        return made

    def describe(self, network: nn.Module) -> dict[str, str]:
        return {"bits": bits_text(self.bits if quantizers_of(network) else {})}

    def rebuild(self, description: Mapping[str, str]) -> nn.Module:
        return quantized(copy.deepcopy(self._teacher.network), parse_bits(description["bits"]))
