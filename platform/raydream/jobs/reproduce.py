"""The job that makes a table of the paper: sets of images first, then the cells that need them, side by side."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from raydream.applications.continual.course import Group
from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import DistillConfig, ReproduceConfig, TrainingConfig
from raydream.data import Dataset, Split
from raydream.errors import DivergenceError, RaydreamError, SynthesisError, first_line
from raydream.jobs.checks.reproduce import (
    CheckedTable,
    bases_of,
    check_room,
    check_table,
    learns_from_real,
    make_library,
    verifiers_of,
)
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.teacher import with_kept_teacher
from raydream.reporting.progress import printer
from raydream.reproduction.cells import Filled, Given, run_cell, updates_of
from raydream.reproduction.estimate import estimated
from raydream.reproduction.report import write_table
from raydream.reproduction.results import HEADLINES, CellResults, Row, in_summary, rows_of, shown
from raydream.reproduction.sets import key_of, make_set
from raydream.reproduction.tables import Cell, cells_of
from raydream.runs.journal import Journal
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import ReproduceSummary
from raydream.runtime.gpus import idle_gpus
from raydream.runtime.logs import name_logs
from raydream.runtime.messages import ReportQueue, TaskProgress, Throttled
from raydream.runtime.session import actor_options, device_of_driver, is_local, machine_nodes, ray_session
from raydream.runtime.tasks import Tasks
from raydream.schedule import Schedule
from raydream.store.folders import Folder, folder_at
from raydream.supervised.library import trained_teacher
from raydream.teachers.teacher import Teacher, teacher_from_arrays, to_arrays

log = logging.getLogger(__name__)

LIBRARY = "runs/library"
"""library folder where a machine without a cluster keeps the parts of its tables"""
KEPT_IN = "kept_in.txt"
"""file in a run's folder with the path of the library when the run began"""


@dataclass(frozen=True)
class Shared:
    """Data in the object store that cells need.

    Attributes:
        verifiers: weights.
        validation, test: splits of the real data.
        groups: of table 7.
    """

    verifiers: list[dict[str, Any]]
    validation: Split
    test: Split
    groups: list[Group]


@dataclass(frozen=True)
class TablePlan:
    """Settings and data of a task. A task fetches only what it needs.

    Attributes:
        config: of the table.
        teacher: a list with the reference to its weights.
        shared: a list with the reference to `Shared`.
        train: a list with the reference to the real data's training split, for cells of real images;
            None if there is no such cell.
        images, cells: folders of sets, and of results by key.
        reports: queue of `Tasks`.
    """

    config: ReproduceConfig
    teacher: list[ray.ObjectRef]
    shared: list[ray.ObjectRef]
    train: list[ray.ObjectRef]
    images: Folder
    cells: Folder
    reports: ReportQueue

    def teacher_here(self) -> Teacher:
        """Return the teacher on the device that this process computes on."""
        config = self.config
        device = use_device(config.device, config.cpus, config.gpus)
        return teacher_from_arrays(config.teacher, ray.get(self.teacher[0])).to(device)


def _given(plan: TablePlan, name: str, cell: Cell, basis: str) -> Given:
    """Return what a cell is given, on the device that it is computed on."""
    teacher, shared = plan.teacher_here(), ray.get(plan.shared[0])
    verifiers = [
        teacher_from_arrays(each, arrays).to(teacher.device)
        for each, arrays in zip(verifiers_of(plan.config), shared.verifiers, strict=True)
    ]
    train = ray.get(plan.train[0]) if learns_from_real(cell) else None
    real = Dataset(*(partial(_split, each) for each in (train, shared.validation, shared.test)))
    report = Throttled(plan.reports, partial(TaskProgress, name))
    return Given(teacher, verifiers, real, shared.groups, basis, plan.images, report)


def _split(split: Split | None) -> Split:
    assert split is not None  # as a cell has what it looks at
    return split


def _make_images(plan: TablePlan, name: str, making: DistillConfig) -> str | None:
    """Make a set of images; if its process is lost, Ray starts it again, and it resumes from its batches.

    Returns:
        why it failed; None if it did not.
    """
    name_logs(f"images {making.synthesis.method}", making.seed)
    teacher, report = plan.teacher_here(), Throttled(plan.reports, partial(TaskProgress, name))
    schedule, done = Schedule.of(making), 0
    work = schedule.total_batches * updates_of(making) + schedule.total_steps

    def on_work() -> None:
        nonlocal done
        done += 1
        report(min(1.0, done / work))

    try:
        make_set(making, teacher, plan.images, on_work)
    except SynthesisError as error:
        return first_line(error)
    return None


def _fill(plan: TablePlan, name: str, key: str, cell: Cell, basis: str, images: str | None) -> str | None:
    """Fill a cell, unless its images failed; if its process is lost, Ray starts it again.

    Args:
        basis: see `Cell.key`.
        images: why there are none; None if there are.

    Returns:
        why it failed; None if it did not.
    """
    if images is not None:
        return images
    name_logs(f"cell {cell.row}", cell.seed)
    try:
        filled = run_cell(cell, _given(plan, name, cell, basis))
    except DivergenceError as error:
        return first_line(error)
    CellResults(plan.cells).write(key, cell, filled)
    return None


_make_task = ray.remote(max_retries=3)(_make_images)
_fill_task = ray.remote(max_retries=3)(_fill)


@dataclass(frozen=True)
class _Checked:
    """A table's cells in order, and what the checks found out."""

    cells: list[Cell]
    table: CheckedTable


def reproduce(command: Command[ReproduceConfig]) -> ReproduceSummary | None:
    """Make a table, or resume; see `carry_out`. Returns None if only a cost estimate was requested."""
    config, say = command.config, printer(Console())
    if config.estimate or (config.scale == "paper" and command.resumed is None):
        for line in estimated(config, cells_of(config)).lines():
            say(line)
        if config.estimate:
            return None
    return carry_out(JOB, command)


def _check(config: ReproduceConfig, resumed: RunFolder | None, say: Say) -> tuple[ReproduceConfig, _Checked]:
    cells = cells_of(config)
    if is_local():
        nodes = machine_nodes([])
        check_room(config, nodes)
        if notice := idle_gpus(config.device, {"gpus": config.gpus}, nodes):
            say(notice)
    checked = check_table(config, cells, with_kept_teacher(config.teacher, resumed))
    if config.library is not None:
        make_library(config.library)
    return config, _Checked(cells, checked)


def _make(run: JobRun[ReproduceConfig], checked: _Checked) -> ReproduceSummary:
    config, device = run.config, device_of_driver(run.config.device, [run.config.gpus])
    teacher = run.teacher(checked.table.teacher, device)
    verifiers = [
        loaded or trained_teacher(described, _training(config, index), config.data, device=device)[0]
        for index, (described, loaded) in enumerate(zip(verifiers_of(config), checked.table.verifiers, strict=True))
    ]
    with contextlib.ExitStack() as session:
        with run.stage("start", "Ray to start"):
            session.enter_context(ray_session(partial(check_room, config), [], run.folder.run))
        with run.stage("cells"):
            table = _Table(config, checked.cells, checked.table, teacher, verifiers, run.folder)
            filled = table.run(run.console, run.journal)
    rows = rows_of(filled, config.table)
    summary = run.timed(_summarize(config, rows, filled, teacher))
    write_table(run.folder, config, rows, filled, summary)
    return summary


def _training(config: ReproduceConfig, index: int) -> TrainingConfig:
    """Return how a verifier is trained: as the teacher, from a different seed."""
    return replace(config.training, seed=config.training.seed + 1 + index)


def library_of(config: ReproduceConfig, folder: RunFolder) -> Folder:
    """Return the folder of cells and sets of images; raises InputError if there can be no such folder.

    A run notes the path of its machine's library, as it may be resumed from another working directory.
    """
    if config.library is not None:
        return folder_at(config.library, "library")
    if not is_local():
        return folder.place
    if not folder.place.has(KEPT_IN):
        folder.place.write(KEPT_IN, str(Path(LIBRARY).absolute()).encode())
    return make_library(folder.place.read(KEPT_IN).decode())


class _Table:
    """All cells as the driver sees them: starts, follows and awaits them."""

    def __init__(
        self,
        config: ReproduceConfig,
        cells: list[Cell],
        checked: CheckedTable,
        teacher: Teacher,
        verifiers: list[Teacher],
        folder: RunFolder,
    ) -> None:
        self._config, self._folder = config, folder
        library = library_of(config, folder)
        library.write("library.txt", b"cells/ and images/ are named by all that decides what is in them.\n")
        self._results = CellResults(library / "cells")
        train = checked.real.train if any(map(learns_from_real, cells)) else None
        self._bases = bases_of(config, cells, checked)
        self._cells = {cell.key(teacher, verifiers, self._bases[cell.row]): cell for cell in cells}
        self._missing = {key: cell for key, cell in self._cells.items() if self._results.read(key) is None}
        of_teacher, *of_verifiers = [to_arrays(network.network) for network in (teacher, *verifiers)]
        shared = Shared(of_verifiers, checked.real.validation, checked.real.test, checked.groups)
        self._tasks = Tasks("sets and cells", config.stall_timeout_s)
        refs = [ray.put(each) for each in (of_teacher, shared, train)]
        places = (library / "images", library / "cells")
        self._plan = TablePlan(config, [refs[0]], [refs[1]], [refs[2]], *places, self._tasks.reports)
        self._teacher = teacher

    def run(self, console: Console, journal: Journal) -> list[tuple[Cell, Filled]]:
        """Fill the missing cells; returns all that are filled, in their order.

        Raises:
            RaydreamError: a process failed for good, no report arrived for too long, or no cell ended.
        """
        say = printer(console)
        say(f"{len(self._cells) - len(self._missing)} of {len(self._cells)} cells are there already")
        self._begin()
        keys = {str(cell): key for key, cell in self._missing.items()}
        for name, reason in self._tasks.ended(console):
            if name in keys and reason is not None:
                journal.note(f"{name} failed and is left out: {reason}")
            elif name in keys:
                say(self._line(keys[name]))
            self._folder.save()
        found = [(cell, self._results.read(key)) for key, cell in self._cells.items()]
        filled = [(cell, each) for cell, each in found if each is not None]
        if not filled:
            raise RaydreamError(f"not one cell was filled; {self._folder.shown(self._folder.journal.name)} says why")
        return filled

    def _begin(self) -> None:
        """Start all tasks; Ray delays a cell until its images are available."""
        options, made = actor_options(self._config.resources), {}
        for cell in self._missing.values():
            if isinstance(cell.images, DistillConfig) and (key := key_of(cell.images, self._teacher)) not in made:
                name = f"images {key}"
                made[key] = _make_task.options(**options).remote(self._plan, name, cell.images)
                self._tasks.add(name, 0.0, made[key])
        for key, cell in self._missing.items():
            after = made[key_of(cell.images, self._teacher)] if isinstance(cell.images, DistillConfig) else None
            task = _fill_task.options(**options).remote(self._plan, str(cell), key, cell, self._bases[cell.row], after)
            self._tasks.add(str(cell), 0.0, task)

    def _line(self, key: str) -> str:
        cell, filled = self._cells[key], self._results.read(key)
        assert filled is not None  # as its task has just written it
        name = HEADLINES[cell.table] or next(reversed(filled.figures))
        figure = shown(name, {"mean": filled.figures[name], "spread": None})
        return f"{cell}: {name} {figure}, {filled.seconds:.0f} s"


def _summarize(
    config: ReproduceConfig, rows: Sequence[Row], filled: Sequence[tuple[Cell, Filled]], teacher: Teacher
) -> ReproduceSummary:
    return ReproduceSummary(
        table=config.table,
        scale=config.scale,
        seeds=config.seeds,
        headline=HEADLINES[config.table] or next(reversed(rows[0].figures)),
        figures=in_summary(rows),
        paper={row.name: row.paper for row in rows if row.paper},
        data=config.data.name,
        teacher=config.teacher.network,
        teacher_fingerprint=teacher.fingerprint,
        measured_on=filled[0][1].facts["measured_on"],
        date=date.today().isoformat(),
        cell_seconds=sum(each.seconds for _, each in filled),
    )


def _rows(summary: ReproduceSummary) -> dict[str, str]:
    best = summary.main
    return {"table": f"{summary.table} at scale {summary.scale}, {summary.seeds} seeds", "best": str(best)}


def _report(folder: RunFolder, config: ReproduceConfig, summary: ReproduceSummary) -> None:
    """Show the table; its page is written with the cells."""
    printer(Console())((folder.path / "table.md").read_text(encoding="utf-8"))


JOB = Job(
    name="reproduce",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"table": "table.parquet", "report": "report.html"},
    figures=None,
)
