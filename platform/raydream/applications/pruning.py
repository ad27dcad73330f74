"""Data-free pruning (section 4.3): remove channels step by step, and recover by distillation on images."""

import copy
import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from raydream.api_arguments import (
    GIVEN,
    OnProgress,
    Pixels,
    Settings,
    check_invertible,
    configured,
    ignore_progress,
    on_cpu,
    pixels_of,
)
from raydream.applications.recovery import Recovery, RecoveryStage, StageReport, total_steps_of
from raydream.buffer.sampler import uniform_draw
from raydream.config import PruneConfig, TeacherConfig
from raydream.config.network_names import PRUNED
from raydream.config.synthesis import default_coefficients_if_made
from raydream.networks import build_teacher
from raydream.networks.pruned import parse_widths, resized, widths_of, widths_text, with_selected_shortcuts
from raydream.pruning import costs
from raydream.pruning.checks import check_prunable, cost_of
from raydream.pruning.importance import CRITERIA, Evidence
from raydream.pruning.latency_table import LatencyTable
from raydream.pruning.ranking import Rule, choose_channels
from raydream.pruning.streams import find_streams, remove
from raydream.seeds import derive_seed
from raydream.store.folders import Folder
from raydream.store.shards import ShardStore
from raydream.teachers.teacher import Teacher, make_teacher

__all__ = [
    "CHECKPOINT",
    "Pruning",
    "RecoveryStage",
    "StageReport",
    "build_pruned",
    "described",
    "prune",
    "stages_of",
    "total_steps",
]

log = logging.getLogger(__name__)

CHECKPOINT = "pruned.safetensors"


def stages_of(config: PruneConfig) -> list[RecoveryStage]:
    """Return all stages in order; they depend only on the configuration."""
    pruning, additions, last = config.pruning, config.additions, config.student.decay
    stages: list[RecoveryStage] = []
    for step in range(pruning.steps):
        ends = step == pruning.steps - 1
        epochs, decay = (pruning.epochs, last) if ends else (pruning.between_epochs, "constant")
        stages += [RecoveryStage("remove", step), RecoveryStage("distill", step, epochs, decay)]
    for added in range(additions.rounds):
        stages += [RecoveryStage("add", added), RecoveryStage("distill", pruning.steps + added, additions.epochs, last)]
    return [stage for stage in stages if stage.kind != "distill" or stage.epochs]


def total_steps(config: PruneConfig, images: int) -> int:
    """Return the number of distillation steps of the whole run, on the given and the added images."""
    return total_steps_of(config, stages_of(config), images)


def described(teacher: TeacherConfig, network: nn.Module) -> TeacherConfig:
    """Describe a pruned teacher as a network that `build_network` builds, without a source of weights."""
    arguments = dict(teacher.arguments)
    of = arguments.pop("of") if teacher.network == PRUNED else teacher.network
    arguments |= {"of": of, "widths": widths_text(widths_of(network))}
    return replace(teacher, network=PRUNED, arguments=arguments, checkpoint=None)


def build_pruned(teacher: TeacherConfig, widths: str) -> nn.Module:
    """Build a teacher's network with other layer widths, without its weights.

    Args:
        widths: as `widths_text` writes them.
    """
    return resized(build_teacher(teacher), parse_widths(widths)).eval()


class Pruning(Recovery[PruneConfig]):
    """A pruning run: the same arguments give the same network, however often the run is stopped and resumed.

    Args:
        config: the run's configuration; settings of processes are ignored.
        teacher: on the device to compute on; stays unchanged.
        images: uint8 [N,C,H,W], all of them.
        folder, store, report, on_work: see `Recovery`.
    """

    name, checkpoint = "pruning", CHECKPOINT

    def __init__(
        self,
        config: PruneConfig,
        teacher: Teacher,
        images: np.ndarray,
        folder: Folder | None = None,
        store: ShardStore | None = None,
        report: Callable[[StageReport], None] = lambda ended: None,
        on_work: Callable[[int], None] = lambda step: None,
    ) -> None:
        original = with_selected_shortcuts(copy.deepcopy(teacher.network))
        super().__init__(config, teacher, images, stages_of(config), original, folder, store, report, on_work)
        self._shape = config.teacher.input_shape
        self._cost = cost_of(config.pruning.of, original, self._shape)
        self._all = costs.total(self._cost, widths_of(original))

    def describe(self, network: nn.Module) -> dict[str, str]:
        return {"widths": widths_text(widths_of(network))}

    def rebuild(self, description: Mapping[str, str]) -> nn.Module:
        network = copy.deepcopy(self._teacher.network)
        return resized(network, parse_widths(description["widths"])).to(self._teacher.device)

    def change(self, stage: RecoveryStage) -> None:
        pruning, state = self._config.pruning, self._state
        streams, widths = find_streams(state.network, self._shape), widths_of(state.network)
        importance = CRITERIA[pruning.criterion](state.network, streams, self._evidence(stage))
        goal = self._all * (1.0 - pruning.ratio * (stage.index + 1) / pruning.steps)
        amount = costs.total(self._cost, widths) - goal
        rule, table = Rule(pruning.least, pruning.block, by_cost=pruning.of == "flops"), None
        if pruning.eta:
            folder = Path(pruning.latency_tables)
            size, news = pruning.latency_batch_size, functools.partial(self._on_work, state.step)
            table = LatencyTable(state.network, self._shape, size, folder, news)
            rule = replace(rule, latency=table, eta=pruning.eta)
        removed = choose_channels(streams, importance, widths, self._cost, amount, rule)
        if table is not None:
            table.save()
        state.network = remove(state.network, streams, removed)
        left = costs.total(self._cost, widths_of(state.network))
        note = ""
        if left > goal * (1.0 + 1e-9):
            why = "no other removal would make the network faster"
            note = f"{left / self._all:.1%} of the {pruning.of} stay and not {goal / self._all:.1%}: {why}"
        self.report(StageReport(stage, state.network, state.step, note=note))

    def _evidence(self, stage: RecoveryStage) -> Evidence:
        batches = [torch.from_numpy(self._images[rows]) for rows in self._drawn(stage)]
        seed = derive_seed(self._config.seed, "importance", stage.index)
        return Evidence(self._teacher, batches, self._config.student.temperature, seed)

    def _drawn(self, stage: RecoveryStage) -> list[np.ndarray]:
        """Draw the positions of the images in each batch that importance is measured on."""
        count, seed = self._config.pruning.batches, derive_seed(self._config.seed, "importance images", stage.index)
        return np.split(uniform_draw(seed, 0, len(self._images), count * self._config.student.batch_size), count)


def prune(
    teacher: Teacher,
    images: Pixels,
    ratio: float = 0.5,
    *,
    seed: int = 0,
    pruning: Settings | None = None,
    additions: Settings | None = None,
    synthesis: Settings | None = None,
    student: Settings | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Teacher:
    """Remove whole channels, and recover by distillation on images alone (section 4.3, eq. 10).

    This is `raydream prune` in one process.

    Args:
        teacher: to prune, and to learn from.
        images: the images to measure importance and to recover on.
        ratio: share of the filters (or FLOPs, by `pruning`) to remove, in (0, 1).
        seed: the seed of all random numbers, at least 0.
        pruning: criterion, steps and epochs, as in `PruningConfig`.
        additions: rounds of images that compete with the pruned network, as in `AdditionsConfig`; none by default.
        synthesis: settings of these images, as in `SynthesisConfig`.
        student: how the network recovers, as in `StudentConfig`.
        on_progress: called with the share of the work that is done, in [0, 1].

    Returns:
        the smaller network, dense as before.

    Raises:
        InputError: a setting that cannot work, images that do not fit, or a network that cannot lose that number of
            channels.
        SynthesisError: the inversion of a round kept diverging.
    """
    pixels = pixels_of(images, teacher)
    sections = {"additions": additions, "synthesis": synthesis}
    settings = {
        "images": GIVEN,
        "seed": seed,
        "pruning": {**(pruning or {}), "ratio": ratio},
        "student": {"learning_rate": 0.02, **(student or {}), "network": "teacher"},
        **{name: dict(section) for name, section in sections.items() if section},
    }
    config = configured(PruneConfig, settings, teacher, default_coefficients_if_made)
    if note := check_prunable(on_cpu(teacher), config):
        log.warning("%s", note)
    if config.additions.rounds:
        check_invertible(teacher, config.synthesis)
    steps = total_steps(config, len(pixels)) or 1
    left = Pruning(config, teacher, pixels, on_work=lambda step: on_progress(step / steps)).run()
    return make_teacher(left, described(teacher.config, left)).to(teacher.device)
