"""Each table as a grid of cells: a row, a column and a seed, and the settings of the run that fills it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from raydream import __version__
from raydream.config import (
    METHODS,
    ContinualConfig,
    DistillConfig,
    PruneConfig,
    PruningConfig,
    ReproduceConfig,
    SynthesisConfig,
    TransferConfig,
)
from raydream.config.continual import ALL_METHODS
from raydream.config.conversion import as_dict
from raydream.engine_version import ENGINE_VERSION
from raydream.errors import InputError
from raydream.reproduction.sets import FORMAT_VERSION, REAL, key_of, making
from raydream.teachers.teacher import Teacher, fingerprint_of

MADE = [name for name, method in METHODS.items() if not method.learns]
"""methods whose sets can be made before a student learns"""
NO_FINETUNE = "no_finetune"
AWARE = "_hardware_aware"

PAPER_ROWS: dict[int, dict[str, str]] = {
    1: {
        "noise": "noise_L_only",
        "deepdream": "deepdream_prior",
        "deep_inversion": "deepinversion",
        "adaptive": "adaptive_deepinversion",
        "dafl": "dafl",
    },
    2: {"deepdream": "deepdream", "deep_inversion": "deepinversion"},
    3: {"deepdream": "deepdream_224", "deep_inversion": "deepinversion_224"},
    4: {
        NO_FINETUNE: "no_finetune",
        "deep_inversion": "deepinversion",
        "adaptive": "adaptive_deepinversion",
        REAL: "imagenet_0.1M",
    },
    5: {
        "teacher": "base",
        REAL: "taylor",
        f"{REAL}{AWARE}": "hardware_aware_real_data",
        "adaptive": "adi_data_free",
        f"adaptive{AWARE}": "adi_plus_hardware_aware",
    },
    6: {"teacher": "teacher", "deep_inversion": "deepinversion_140k", REAL: "imagenet_215k"},
    7: {
        "deep_inversion": "deepinversion",
        "deepdream": "deepdream",
        "lwf_mc": "lwf_mc",
        "oracle_distill": "oracle_distill",
        "oracle_classify": "oracle_classify",
    },
}
"""our rows that the paper shares, by its names"""

Run = DistillConfig | TransferConfig | PruneConfig | ContinualConfig


@dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
        table: number of the paper's table.
        row, column: place of its figures; a table of one column has "".
        seed: the run's seed.
        run: its resolved settings; fingerprints identify teacher and verifiers.
        images: the images it learns from or measures: how a set is made, `REAL`, or a path; None: it makes its own.
        count: for table 3: number of images measured, if the validation split has that number.
    """

    table: int
    row: str
    column: str
    seed: int
    run: Run
    images: DistillConfig | str | None = None
    count: int = 0

    def __str__(self) -> str:
        return f"{' '.join(part for part in (self.row, self.column) if part)} (seed {self.seed})"

    def key(self, teacher: Teacher, verifiers: list[Teacher], basis: str) -> str:
        """Return the key of its result: a fingerprint of all that determines it.

        Args:
            basis: fingerprint of its other inputs besides settings and networks: images that are not synthesized, and
                the machine.
        """
        images = key_of(self.images, teacher) if isinstance(self.images, DistillConfig) else None
        networks = [[each.fingerprint, as_dict(replace(each.config, checkpoint=None))] for each in verifiers]
        decides = [
            FORMAT_VERSION,
            ENGINE_VERSION,
            __version__,
            self.table,
            self.row,
            self.seed,
            as_dict(self.run),
            images,
            self.count,
            teacher.fingerprint,
            networks,
            basis,
        ]
        return fingerprint_of([json.dumps(decides).encode()])


def rows_of(config: ReproduceConfig) -> list[str]:
    """Return the rows of a table, in order; raises InputError for a requested row that it lacks."""
    others = [*config.sources]
    if taken := [name for name in others if name in (*METHODS, NO_FINETUNE, REAL)]:
        raise InputError("sources", taken[0], "a name that no row of the tables has", "call these images otherwise")
    if taken := [name for name, path in config.sources.items() if path == REAL]:
        raise InputError(f"sources.{taken[0]}", REAL, "a path that is not taken for the data's own", f"write ./{REAL}")
    rows = {
        1: [*METHODS],
        2: [*MADE, REAL],
        3: [*MADE, REAL],
        4: [NO_FINETUNE, *MADE, *others, REAL],
        5: ["teacher", REAL, f"{REAL}{AWARE}", "adaptive", f"adaptive{AWARE}"],
        6: [*MADE, *others, REAL],
        7: [*ALL_METHODS],
    }[config.table]
    if unknown := [row for row in config.rows if row not in rows]:
        raise InputError("rows", unknown[0], f"one of {', '.join(rows)}", "leave it out")
    return [row for row in rows if row in config.rows] if config.rows else rows


def cells_of(config: ReproduceConfig) -> list[Cell]:
    """Return all cells of a table, grouped by seed; raises InputError where settings contradict each other."""
    found: list[Cell] = []
    for seed in range(config.seed, config.seed + config.seeds):
        for row in rows_of(config):
            try:
                found += _CELLS[config.table](config, row, seed)
            except ValidationError as error:  # pydantic's own, where one component is made from others
                inner = error.errors()[0].get("ctx", {}).get("error")
                raise (inner if isinstance(inner, InputError) else error) from error
    return found


def _shared(config: ReproduceConfig) -> dict[str, Any]:
    """Return the settings that all runs share; fingerprints, not paths, identify weights and their origin."""
    return {"teacher": replace(config.teacher, checkpoint=None), "data": config.data, "device": config.device}


def _by(synthesis: SynthesisConfig, method: Any) -> SynthesisConfig:
    return replace(synthesis, method=method)


def _students(config: ReproduceConfig, row: str, seed: int) -> Iterator[Cell]:
    synthesis = _by(config.synthesis, row)
    learning: dict[str, Any] = {"student": config.student, "buffer": config.buffer, "rounds": config.rounds}
    yield Cell(1, row, "", seed, DistillConfig(seed=seed, synthesis=synthesis, **learning, **_shared(config)))


def _looked_at(config: ReproduceConfig, row: str, seed: int) -> Iterator[Cell]:
    images = _source(config, row, seed)
    run = DistillConfig(seed=seed, **_shared(config))
    count = config.new_images if config.table == 3 else 0
    yield Cell(config.table, row, "", seed, images if isinstance(images, DistillConfig) else run, images, count)


def _pruned(config: ReproduceConfig, row: str, seed: int) -> Iterator[Cell]:
    for ratio in config.ratios:
        pruning = replace(config.pruning, ratio=ratio, eta=0.0)
        source = row
        if row == NO_FINETUNE:
            source, pruning = "deep_inversion", replace(pruning, between_epochs=0, epochs=0)
        yield _pruning(config, row, f"−{ratio:.0%} filters", seed, source, pruning)


def _compared(config: ReproduceConfig, row: str, seed: int) -> Iterator[Cell]:
    eta = config.pruning.eta if row.endswith(AWARE) else 0.0
    pruning = replace(config.pruning, ratio=config.ratios[0], eta=eta)
    yield _pruning(config, row, "", seed, row.removesuffix(AWARE), pruning)


def _pruning(config: ReproduceConfig, row: str, column: str, seed: int, source: str, pruning: PruningConfig) -> Cell:
    synthesis, additions = replace(config.synthesis, method="adaptive"), replace(config.additions, rounds=0)
    if source == "adaptive" and config.additions.rounds:
        source, additions = "deep_inversion", config.additions
    learning: dict[str, Any] = {
        "pruning": pruning,
        "additions": additions,
        "student": config.student,
        "synthesis": synthesis,
    }
    run = PruneConfig(seed=seed, new_images=config.new_images, **learning, **_shared(config))
    images = None if row == "teacher" else _source(config, source, seed)
    return Cell(config.table, row, column, seed, run, images)


def _transferred(config: ReproduceConfig, row: str, seed: int) -> Iterator[Cell]:
    synthesis = replace(config.synthesis, method="deep_inversion")  # what is made, its images say
    learning: dict[str, Any] = {"student": config.student, "epochs": config.epochs, "synthesis": synthesis}
    run = TransferConfig(seed=seed, new_images=config.new_images, **learning, **_shared(config))
    yield Cell(6, row, "", seed, run, _source(config, row, seed))


def _continual(config: ReproduceConfig, row: str, seed: int) -> Iterator[Cell]:
    run = ContinualConfig(
        seed=seed,
        seeds=1,
        methods=(row,),
        steps=config.steps,
        images_per_class=config.images_per_class,
        epochs=config.epochs,
        synthesis=config.synthesis,
        student=config.student,
        **_shared(config),
    )
    yield Cell(7, row, "", seed, run)


def _source(config: ReproduceConfig, row: str, seed: int) -> DistillConfig | str:
    if row not in MADE:
        return config.sources.get(row, row)
    synthesis = _by(config.synthesis, row)
    teacher = replace(config.teacher, checkpoint=None)
    return making(teacher, synthesis, config.student, config.buffer, config.new_images, seed)


_CELLS = {
    1: _students,
    2: _looked_at,
    3: _looked_at,
    4: _pruned,
    5: _compared,
    6: _transferred,
    7: _continual,
}
