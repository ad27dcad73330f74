"""What is checked before a table of the paper is made: all that its runs would check if they were jobs."""

from dataclasses import dataclass, replace

from torch import nn

from raydream.applications.continual.course import Group
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
from raydream.folders import LocalFolder, folder_at
from raydream.networks import build_teacher
from raydream.pruning.checks import check_prunable
from raydream.reproduction.sets import REAL, content_of
from raydream.reproduction.tables import Cell
from raydream.runtime.continual_preflight import check_continual
from raydream.runtime.preflight import Nodes, check_batch, check_student
from raydream.schedule import Schedule
from raydream.targets import check_targets
from raydream.teachers.checks import check_network, check_shapes
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher


@dataclass(frozen=True)
class CheckedTable:
    """What the checks found out.

    Attributes:
        teacher: loaded from its checkpoint; None where it is to be trained.
        verifiers: likewise.
        real: to measure on.
        groups: of table 7.
        sources: fingerprints of other people's images, by the names of their rows.
    """

    teacher: Teacher | None
    verifiers: list[Teacher | None]
    real: Dataset
    groups: list[Group]
    sources: dict[str, str]


def verifiers_of(config: ReproduceConfig) -> list[TeacherConfig]:
    """Descriptions of the independent networks, as the command line has resolved them; none for other tables."""
    if config.table not in (2, 3):
        return []
    return [each for each in config.verifiers if isinstance(each, TeacherConfig)]


def learns_from_real(cell: Cell) -> bool:
    """Whether a cell looks at the real data's training split; tables 2 and 3 show others."""
    return cell.images == REAL and cell.table in (4, 5, 6)


def check_table(config: ReproduceConfig, cells: list[Cell], teacher: TeacherConfig) -> CheckedTable:
    """Load what is named, and see that each cell's run can work.

    Args:
        teacher: with its checkpoint, wherever that is kept.

    Raises:
        InputError: it cannot be had, or does not fit.
    """
    described = [("teacher", teacher), *((f"verifiers.{at}", each) for at, each in enumerate(verifiers_of(config)))]
    loaded = [None if each.checkpoint is None else load_teacher(each, field) for field, each in described]
    networks = [
        build_teacher(each).eval() if known is None else known.network
        for known, (_, each) in zip(loaded, described, strict=True)
    ]
    for network, (_, each) in zip(networks, described, strict=True):
        check_shapes(network, each)
    for cell in cells:
        if cell.seed == config.seed:
            _check_cell(cell, networks[0], trained=loaded[0] is not None)
    trains = None in loaded or any(map(learns_from_real, cells))
    real = check_data(config.data, config.teacher, train=trains)
    assert real is not None  # as the configuration has seen
    shape = config.teacher.input_shape
    sources = {name: content_of(path, f"sources.{name}", shape) for name, path in config.sources.items()}
    return CheckedTable(loaded[0], loaded[1:], real, _groups(cells, teacher), sources)


def make_library(where: str) -> None:
    """See that there is a folder to keep results in; raises InputError. What is reached by a URL makes itself."""
    place = folder_at(where, "library")
    if isinstance(place, LocalFolder):
        try:
            place.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError("library", where, "a folder that can be written to", first_line(error)) from error


def check_room(config: ReproduceConfig, nodes: Nodes) -> None:
    """See that there is a node with room for a cell; raises InputError."""
    for field, name in (("cpus", "CPU"), ("gpus", "GPU")):
        most, asked = max(node.get(name, 0.0) for node in nodes), getattr(config, field)
        if asked > most:
            raise InputError(field, asked, f"at most {most:g}", "a cell runs on one node: let it reserve less")


def _check_cell(cell: Cell, network: nn.Module, trained: bool) -> None:
    """See that images can be made, a student built, and channels removed, as a cell asks for; raises InputError."""
    if isinstance(cell.images, DistillConfig):
        _check_rounds(cell.images, network, trained)
    if cell.table == 1 and isinstance(cell.run, DistillConfig):
        _check_rounds(cell.run, network, trained)
    elif isinstance(cell.run, TransferConfig):
        check_student(cell.run)
        check_batch(cell.run, cell.run.new_images)
    elif isinstance(cell.run, PruneConfig):
        try:
            check_prunable(network, cell.run)
        except InputError as error:
            field = {"pruning.ratio": "ratios"}.get(error.field, error.field)  # as a table calls it
            raise InputError(field, error.value, error.allowed, error.remedy) from error
        check_batch(cell.run, cell.run.new_images)


def _check_rounds(config: DistillConfig, network: nn.Module, trained: bool) -> None:
    check_network(network, config.teacher, config.synthesis, trained)
    check_targets(config.synthesis.targets, config.teacher.classes)
    make_limiter(config, Schedule.of(config), check_student(config))


def _groups(cells: list[Cell], teacher: TeacherConfig) -> list[Group]:
    """Of table 7, whose teacher has to know the first of them; raises InputError."""
    runs = [cell.run for cell in cells if isinstance(cell.run, ContinualConfig)]
    if not runs:
        return []
    methods = tuple(dict.fromkeys(run.methods[0] for run in runs))
    return check_continual(replace(runs[0], methods=methods), teacher).groups
