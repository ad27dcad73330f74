"""The checks before a table of the paper is made: all that its runs would check if they were jobs."""

import json
from dataclasses import dataclass, replace

import torch
from torch import nn

from raydream.applications.continual.course import Group
from raydream.applications.continual.methods import METHODS
from raydream.buffer.limiter import make_limiter
from raydream.config import (
    ContinualConfig,
    DistillConfig,
    PruneConfig,
    ReproduceConfig,
    TeacherConfig,
    TransferConfig,
)
from raydream.data import Dataset, check_data
from raydream.errors import InputError, first_line
from raydream.extras import require
from raydream.jobs.checks.extend import check_continual
from raydream.jobs.checks.images import check_batch
from raydream.jobs.checks.networks import check_student
from raydream.networks import build_teacher
from raydream.pruning.checks import check_prunable
from raydream.reproduction.sets import REAL, content_of
from raydream.reproduction.tables import Cell
from raydream.runtime.placement import Nodes
from raydream.schedule import Schedule
from raydream.store.folders import Folder, LocalFolder, folder_at
from raydream.synthesis.checks import check_network
from raydream.targets import check_targets
from raydream.teachers.checks import check_shapes
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher, fingerprint_of

EXTRAS = {3: "metrics", 4: "prune", 5: "prune"}
"""optional dependencies by table"""


@dataclass(frozen=True)
class CheckedTable:
    """The findings of the checks.

    Attributes:
        teacher: loaded from its checkpoint; None if it must be trained.
        verifiers: likewise.
        real: to measure on.
        groups: of table 7.
        sources: fingerprints of external images, by the names of their rows.
    """

    teacher: Teacher | None
    verifiers: list[Teacher | None]
    real: Dataset
    groups: list[Group]
    sources: dict[str, str]


def verifiers_of(config: ReproduceConfig) -> list[TeacherConfig]:
    """Return descriptions of the independent networks, as the command line has resolved them; none for other tables."""
    if config.table not in (2, 3):
        return []
    return [each for each in config.verifiers if isinstance(each, TeacherConfig)]


def learns_from_real(cell: Cell) -> bool:
    """Return whether a cell needs the real data's training split; tables 2 and 3 show others."""
    return cell.images == REAL and cell.table in (4, 5, 6)


def check_table(config: ReproduceConfig, cells: list[Cell], teacher: TeacherConfig) -> CheckedTable:
    """Load what is named, and check that each cell's run can work.

    Args:
        teacher: with its checkpoint, wherever that is kept.

    Raises:
        InputError: it cannot be obtained, or does not fit.
    """
    require(EXTRAS.get(config.table, ""), f"table {config.table}")
    described = [("teacher", teacher), *((f"verifiers.{at}", each) for at, each in enumerate(verifiers_of(config)))]
    loaded = [None if each.checkpoint is None else load_teacher(each, field) for field, each in described]
    networks = [
        build_teacher(each, field).eval() if known is None else known.network
        for known, (field, each) in zip(loaded, described, strict=True)
    ]
    for network, (field, each) in zip(networks, described, strict=True):
        check_shapes(network, each, field)
    _check_cells([cell for cell in cells if cell.seed == config.seed], networks[0], trained=loaded[0] is not None)
    trains = None in loaded or any(map(learns_from_real, cells))
    real = check_data(config.data, config.teacher, train=trains)
    assert real is not None  # as the configuration has seen
    shape, rows = config.teacher.input_shape, {cell.row for cell in cells}
    asked = {name: path for name, path in config.sources.items() if name in rows}
    sources = {name: content_of(path, f"sources.{name}", shape) for name, path in asked.items()}
    return CheckedTable(loaded[0], loaded[1:], real, _groups(cells, teacher), sources)


def bases_of(config: ReproduceConfig, cells: list[Cell], checked: CheckedTable) -> dict[str, str]:
    """Return the basis of each row's cells, see `Cell.key`: real and external images, torch, and the device."""
    groups, real = checked.groups, checked.real
    machine = json.dumps([torch.__version__, config.device, config.cpus, config.gpus]).encode()
    shared = [real.validation, real.test, *(part for each in groups for part in (each.validation, each.test))]
    shared += [each.train for each in groups[1:]]
    found = {}
    for cell in cells:
        if cell.row not in found:
            # Only rows of real images use these, so that no row depends on which other rows are requested.
            trained_on = [real.train] if learns_from_real(cell) else []
            trained_on += [each.train for each in groups[:1] if METHODS[cell.row].images == "real"]
            parts = (part.tobytes() for each in shared + trained_on for part in (each.images, each.labels))
            found[cell.row] = fingerprint_of([machine, *parts]) + checked.sources.get(cell.row, "")
    return found


def make_library(where: str) -> Folder:
    """Return a folder to keep results in, which is made unless a URL names it; raises InputError."""
    place = folder_at(where, "library")
    if isinstance(place, LocalFolder):
        try:
            place.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError("library", where, "a folder that can be written to", first_line(error)) from error
    return place


def check_room(config: ReproduceConfig, nodes: Nodes) -> None:
    """Check that a node has room for a cell; raises InputError."""
    for field, name in (("cpus", "CPU"), ("gpus", "GPU")):
        most, asked = max(node.get(name, 0.0) for node in nodes), getattr(config, field)
        if asked > most:
            raise InputError(field, asked, f"at most {most:g}", "a cell runs on one node: let it reserve less")


def _check_cells(cells: list[Cell], network: nn.Module, trained: bool) -> None:
    """Check that images can be made, students built, and channels removed, as cells need; raises InputError.

    What cells have in common is checked once.
    """
    for run in {repr(each): each for cell in cells if isinstance(each := cell.run, TransferConfig)}.values():
        check_student(run)
        check_batch(run, run.new_images)
    prunings = [each for cell in cells if isinstance(each := cell.run, PruneConfig)]
    for pruned in {each.pruning.ratio: each for each in prunings}.values():  # all else that is checked is the table's
        _check_pruning(pruned, network)
    made = [each for cell in cells for each in (cell.images, cell.run if cell.table == 1 else None)]
    for config in {repr(each): each for each in made if isinstance(each, DistillConfig)}.values():
        _check_rounds(config, network, trained)


def _check_pruning(config: PruneConfig, network: nn.Module) -> None:
    try:
        check_prunable(network, config)
    except InputError as error:
        field = "ratios" if error.field == "pruning.ratio" else error.field  # as a table calls it
        raise InputError(field, error.value, error.allowed, error.remedy) from error
    check_batch(config, config.new_images)


def _check_rounds(config: DistillConfig, network: nn.Module, trained: bool) -> None:
    check_network(network, config.teacher, config.synthesis, trained)
    check_targets(config.synthesis.targets, config.teacher.classes)
    make_limiter(config, Schedule.of(config), check_student(config))


def _groups(cells: list[Cell], teacher: TeacherConfig) -> list[Group]:
    """Return the groups of table 7, whose teacher has to know the first of them; raises InputError."""
    runs = [cell.run for cell in cells if isinstance(cell.run, ContinualConfig)]
    if not runs:
        return []
    methods = tuple(dict.fromkeys(run.methods[0] for run in runs))
    return check_continual(replace(runs[0], methods=methods), teacher).groups
