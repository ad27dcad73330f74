"""The skeleton of all jobs: check, hold the run's folder, make what is missing or read what exists, report, print."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from rich.console import Console

from raydream.applications.reuse import note_reused
from raydream.cli import Command
from raydream.commands import NAMES
from raydream.config.conversion import as_dict
from raydream.jobs.coefficients import with_coefficients
from raydream.jobs.teacher import keep_teacher
from raydream.reporting.cost import Reserves, cost_rows, hours
from raydream.reporting.description import described
from raydream.reporting.progress import printer, result_table, waiting
from raydream.runs import run_folder
from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder
from raydream.runs.recording import recording
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import SUMMARIES
from raydream.runs.summary import Summary
from raydream.runtime.session import machine_text
from raydream.store.atomic import write_json
from raydream.store.shards import ShardStore
from raydream.teachers.teacher import Teacher

Config = TypeVar("Config")
Checked = TypeVar("Checked")
Made = TypeVar("Made", bound=Summary)

Say = Callable[[str], None]
"""prints a line for the user"""


def _floats(summary: Summary) -> Mapping[str, Any]:
    return {name: value for name, value in summary.as_json().items() if isinstance(value, float)}


def _whole(config: Any, folder: RunFolder, summary: Any, note: Say) -> bool:
    return True


@dataclass(frozen=True)
class JobRun(Generic[Config]):
    """One session of a run, as passed to a job's `make`.

    Attributes:
        config: of the run, with what depends on this machine.
        folder: of the run, held.
        recorder: of its metrics.
        journal: of failures and repairs.
        console: the user's terminal.
    """

    config: Config
    folder: RunFolder
    recorder: Recorder
    journal: Journal
    console: Console

    def say(self, text: str) -> None:
        """Print a line for the user."""
        printer(self.console)(text)

    @contextlib.contextmanager
    def stage(self, name: str, waits_for: str = "") -> Iterator[None]:
        """Record a `with` block as a stage of the run.

        Args:
            waits_for: what the block waits for without showing how far it is, which is printed now and then.
        """
        with self.recorder.stage(name), waiting(waits_for, self.console) if waits_for else contextlib.nullcontext():
            yield

    def teacher(self, loaded: Teacher | None, device: torch.device) -> Teacher:
        """Return the run's teacher; see `keep_teacher`. The settings have the sections teacher, training and data."""
        config: Any = self.config
        with self.stage("teacher", "the teacher, which is trained where no checkpoint is named"):
            return keep_teacher(loaded, (config.teacher, config.training, config.data), self.folder, self.say, device)

    def hours(self, *reserved: tuple[str, int, Reserves]) -> dict[str, Any]:
        """Return CPU- and GPU-hours from each stage's processes and what each of them reserves."""
        seconds = self.recorder.seconds_by_stage()
        return hours(*((seconds.get(stage, 0.0), count, each) for stage, count, each in reserved))

    def timed(self, summary: Made) -> Made:
        """Return a summary completed by the run's duration so far and its machine."""
        stages = self.recorder.seconds_by_stage()
        return replace(summary, wall_s=self.recorder.elapsed_s, seconds_by_stage=stages, **machine_text())

    def reused(self) -> dict[str, int]:
        """Return the number of batches reused from each earlier run, by its id; noted in the journal."""
        reuse: str = getattr(self.config, "reuse")  # noqa: B009
        return note_reused(ShardStore(self.folder.images), self.folder.run, reuse, self.journal.note)


@dataclass(frozen=True)
class Job(Generic[Config, Checked, Made]):
    """The parts of a job that differ from other jobs.

    Attributes:
        name: of its command; a key of `summaries.SUMMARIES`.
        check: rejects what cannot work, before Ray starts and before anything is written. It takes the settings,
            the folder of a run that is resumed, and a function that prints a line; it returns the settings completed
            for this machine, and its findings. Raises InputError.
        make: does the work that remains; the skeleton adds what all summaries have. Raises RaydreamError.
        rows: of the table at the end, by their headings.
        report: writes the pages of a run that is done. Raises OSError.
        files: in the run's folder, which the table names if they exist, by their headings.
        is_whole: whether a run that is done still has all that it made; what is missing is made again.
        figures: beside the settings in TensorBoard's HParams; None: the job writes them itself.
    """

    name: str
    check: Callable[[Config, RunFolder | None, Say], tuple[Config, Checked]]
    make: Callable[[JobRun[Config], Checked], Made]
    rows: Callable[[Made], Mapping[str, str]]
    report: Callable[[RunFolder, Config, Made], object] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    is_whole: Callable[[Config, RunFolder, Made, Say], bool] = _whole
    figures: Callable[[Made], Mapping[str, Any]] | None = _floats


def carry_out(job: Job[Config, Checked, Made], command: Command[Config]) -> Made:
    """Begin a run, resume it, or show the results of a finished one, which needs only its folder.

    Returns:
        the summary, which is also in the folder.

    Raises:
        InputError: before Ray starts and before anything is written; only what depends on the size of a cluster that
            is joined is known later.
        RaydreamError: the run failed; it can be resumed.
    """
    began_at, config, console = time.time(), command.config, Console()
    say = printer(console)
    with contextlib.ExitStack() as stack:
        folder, summary = command.resumed, None
        if folder is not None:
            stack.enter_context(run_folder.held(folder))
            summary = _finished(job, config, folder, say)
        if summary is None:
            config, chosen = with_coefficients(config, job.check, folder, console)
            command.config = config  # as the run's folder keeps it, so that a resumed run has the same numbers
            with waiting("networks and data to be checked", console):
                config, checked = job.check(config, folder, say)
            if folder is None:
                folder = command.folder(job.name)
                stack.enter_context(run_folder.held(folder))
            say(f"run {folder.run} in {folder.shown()}")
            if chosen:
                Journal(folder.journal, say).note(chosen)
            summary = _made(job, command, config, checked, folder, began_at, console)
        else:
            assert folder is not None
            say(f"the run in {folder.shown()} is done; its report is written again")
        if job.report is not None:
            with waiting("the report to be written", console):
                job.report(folder, config, summary)
    console.print(result_table(_rows(job, folder, summary)))
    say(f"{Path(sys.executable).with_name('tensorboard')} --logdir {folder.shown(folder.tensorboard.name)}")
    return summary


def _finished(job: Job[Config, Checked, Made], config: Config, folder: RunFolder, say: Say) -> Made | None:
    """Return the summary of a run that is done and has lost nothing since; else None."""
    kind: type[Made] = SUMMARIES[job.name]  # type: ignore[assignment]
    summary = run_folder.read_summary(folder, kind)
    whole = summary is not None and job.is_whole(config, folder, summary, Journal(folder.journal, say).note)
    return summary if whole else None


def _made(
    job: Job[Config, Checked, Made],
    command: Command[Config],
    config: Config,
    checked: Checked,
    folder: RunFolder,
    began_at: float,
    console: Console,
) -> Made:
    settings = as_dict(config)
    opened = recording(folder, began_at, printer(console), settings["experiment"], command.track)
    with opened as (recorder, journal):
        recorder.describe(settings, described(job.name, NAMES[job.name].does, folder, machine_text(), settings))
        run = JobRun(config, folder, recorder, journal, console)
        summary = run.timed(job.make(run, checked))
        if job.figures is not None:
            recorder.finish(settings, job.figures(summary))
    write_json(folder.summary, summary.as_json())
    return summary


def _rows(job: Job[Any, Any, Made], folder: RunFolder, summary: Made) -> dict[str, str]:
    """Return the table at the end: the job's rows, the run's duration, and the places of its results."""
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in summary.seconds_by_stage.items())
    rows = {**job.rows(summary), "seconds": f"{summary.wall_s:.0f} in all" + (f": {stages}" if stages else "")}
    rows |= cost_rows(summary)
    there = {name: file for name, file in job.files.items() if (folder.path / file).exists()}
    return rows | {"run folder": folder.shown()} | {name: folder.shown(file) for name, file in there.items()}
