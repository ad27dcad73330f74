"""The job that searches an experiment's settings; what comes out is a file that jobs/distill.py takes."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from raydream.cli import Command
from raydream.config import SearchConfig
from raydream.errors import RaydreamError
from raydream.jobs.checks.search import CheckedSearch, check_search, check_trial_fits
from raydream.jobs.teacher import keep_teacher, with_kept_teacher
from raydream.reporting.cost import cost_rows, hours
from raydream.reporting.hyper_parameters import write_hyper_parameters
from raydream.reporting.progress import Counter, printer, result_table
from raydream.reporting.search_report import write_search_report
from raydream.runs import run_folder
from raydream.runs.run_folder import RunFolder
from raydream.runtime.exam import make_exam
from raydream.runtime.gpus import idle_gpus
from raydream.runtime.session import device_of_driver, is_local, machine_nodes, machine_text, ray_session
from raydream.runtime.trial import TrialPlan
from raydream.runtime.trials import Search, run_trials
from raydream.search.candidates import make_sampler
from raydream.search.metrics import MEASURES, measured, metric_of
from raydream.search.space import Space, experiment, full_scale, shown
from raydream.search.trials import Trials
from raydream.store.atomic import write_aside, write_json
from raydream.store.yaml_files import write_yaml
from raydream.teachers.teacher import Teacher, to_arrays

BEST = "best.yaml"
"""the experiment with the best trial's settings, as jobs/distill.py takes it"""


@dataclass(frozen=True)
class Job:
    """What is made of trials.

    Attributes:
        split: of real data on which students are measured.
        chooses: whether the best trial's settings are kept as best.yaml, on which `split` must not be test.
        summarise: the final figures, from configuration, folder and trials; raises RaydreamError where there are none.
        report: writes the page.
        rows: of the table at the end.
    """

    split: str
    chooses: bool
    summarise: Callable[[SearchConfig, RunFolder, Trials], dict[str, Any]]
    report: Callable[[RunFolder, SearchConfig, Space, Trials, dict[str, Any]], Path]
    rows: Callable[[dict[str, Any], RunFolder], dict[str, str]]


def search(command: Command[SearchConfig]) -> dict[str, Any]:
    """Search the settings of an experiment, or go on with it; see `carry_out`."""
    return carry_out(command, command.config, Job("validation", True, _summarise, write_search_report, _rows))


def carry_out(command: Command[Any], config: SearchConfig, job: Job) -> dict[str, Any]:
    """Run trials, or those that are missing; returns the summary, which is also in the run folder.

    Args:
        command: for its folder.
        config: of the trials.

    Raises:
        InputError: before Ray starts and before anything is written.
        RaydreamError: no trial came to its end.
    """
    began_at, console = time.time(), Console()
    if is_local():
        nodes = machine_nodes([])
        check_trial_fits(config, nodes)
        if notice := idle_gpus(config.device, {"trial.gpus": config.trial.gpus}, nodes):
            printer(console)(notice)
    checked = check_search(config, with_kept_teacher(config.teacher, command.resumed))
    folder = command.folder()
    with run_folder.held(folder):
        trials = Trials(folder.path / "trials.jsonl")
        summary = run_folder.read_summary(folder)
        if summary is None:
            _run(config, checked, folder, trials, job, console)
            _write_tables(folder, trials.table(metric_of(config)))
            wall = {"wall_s": time.time() - began_at, **machine_text()}
            summary = job.summarise(config, folder, trials) | wall
            write_json(folder.summary, summary)
        report = job.report(folder, config, checked.space, trials, summary)
    told = {"seconds": f"{summary['wall_s']:.0f}", **cost_rows(summary), "report": folder.shown(report.name)}
    console.print(result_table(job.rows(summary, folder) | told))
    return summary


def _run(
    config: SearchConfig, checked: CheckedSearch, folder: RunFolder, trials: Trials, job: Job, console: Console
) -> None:
    say = printer(console)
    say(f"search {folder.run} in {folder.shown()}")
    device, recipe = (
        device_of_driver(config.device, [config.trial.gpus]),
        (config.teacher, config.training, config.data),
    )
    teacher = keep_teacher(checked.teacher, recipe, folder, say, device)
    (folder.path / "trials").mkdir(exist_ok=True)  # a shard's folder is made by who writes it, and its parent is not
    with contextlib.ExitStack() as session:
        session.enter_context(ray_session(partial(check_trial_fits, config), [], folder.run))
        exam = None
        if "exam_agreement" in measured(config):
            say("making the exam's images")
            exam = make_exam(config, checked.space, teacher, folder.place / "exam")
        plan = _plan(config, checked, teacher, folder, job.split, exam)
        counter = session.enter_context(Counter("trials", _ended(trials), checked.trials, console))
        sampler = make_sampler(config.searcher, checked.space, checked.trials, config.seed)
        tell = _Teller(config, folder, trials, counter, job.chooses)
        run_trials(Search(config, checked.space, checked.trials, sampler, trials, tell.ended, tell.reported), plan)


def _plan(
    config: SearchConfig, checked: CheckedSearch, teacher: Teacher, folder: RunFolder, split: str, exam: Any
) -> TrialPlan:
    return TrialPlan(
        teacher=(config.teacher, to_arrays(teacher.network)),
        verifiers=tuple((each.config, to_arrays(each.network)) for each in checked.verifiers),
        place=folder.place,
        exam=exam,
        measures=frozenset(measured(config)),
        metric=metric_of(config),
        real=None if checked.real is None else getattr(checked.real, split),
        images_only=config.images_only,
        cpus=config.trial.cpus,
        gpus=config.trial.gpus,
    )


class _Teller:
    """Tells the user of trials as they report and end, and keeps best.yaml at what is best so far."""

    def __init__(
        self, config: SearchConfig, folder: RunFolder, trials: Trials, counter: Counter, chooses: bool
    ) -> None:
        self._config, self._folder, self._trials, self._counter = config, folder, trials, counter
        self._chooses = chooses
        self._metric = metric_of(config)
        self._best = trials.best(self._metric)

    def reported(self, trial: int) -> None:
        self._folder.save()

    def ended(self, trial: int) -> None:
        known, best = self._trials[trial], self._trials.best(self._metric)
        if self._chooses and best is not None and best != self._best:
            self._best = best
            write_best(self._folder.path / BEST, self._config, self._trials, best)
        if known.status == "failed":
            self._counter.say(f"trial {trial} failed: {known.reason}")
        else:
            last = known.reports[-1]
            ahead = (
                f"best: trial {best}, {self._trials[best].reports[-1][self._metric]:.4g}"
                if best is not None and self._chooses
                else ""
            )
            stopped = f", stopped after report {len(known.reports)}" if known.status == "stopped" else ""
            told = f"trial {trial}: {self._metric} {last[self._metric]:.4g}{stopped}, {last['seconds']:.0f} s"
            self._counter.say(f"{told}  ({ahead})" if ahead else told)
        self._counter.update(_ended(self._trials))
        self._folder.save()


def write_best(path: Path, config: SearchConfig, trials: Trials, best: int) -> None:
    """Write the experiment, at its own scale, with the settings of a trial; raises OSError."""
    write_yaml(path, experiment(full_scale(config, trials[best].point)))


def _ended(trials: Trials) -> int:
    return len(trials.items()) - trials.count("running")


def _write_tables(folder: RunFolder, table: pd.DataFrame) -> None:
    for name, rows in (("reports.parquet", table), ("trials.parquet", table[table["last"]])):
        write_aside(folder.path / name, lambda aside, rows=rows: rows.to_parquet(aside, index=False))  # type: ignore[misc]


def spent(config: SearchConfig, trials: Trials) -> dict[str, Any]:
    """How many trials there were, how they ended, and what they took; raises RaydreamError where none came to its end.

    Returns:
        figures for a summary; updates are of the pixels of a batch, over all trials.
    """
    if not trials.count("done"):
        reasons = next((trial.reason for _, trial in trials.items() if trial.reason), "all were stopped")
        raise RaydreamError(f"not one of {len(trials.items())} trials came to its end, the first because: {reasons}")
    last = [trial.reports[-1] for _, trial in trials.items() if trial.reports]
    return {
        "metric": metric_of(config),
        "metric_is": MEASURES[metric_of(config)].what,
        "seed": config.seed,
        "trials": len(trials.items()),
        **{f"trials_{status}": trials.count(status) for status in ("done", "stopped", "failed")},
        "updates": int(sum(values["updates"] for values in last)),
        "trial_seconds": float(sum(values["seconds"] for values in last)),
        **hours(*((values["seconds"], 1, config.trial) for values in last)),
    }


def _summarise(config: SearchConfig, folder: RunFolder, trials: Trials) -> dict[str, Any]:
    counted, best = spent(config, trials), trials.best(metric_of(config))
    assert best is not None
    write_best(folder.path / BEST, config, trials, best)
    write_hyper_parameters(folder.tensorboard, trials, metric_of(config))
    return counted | {
        "split": "validation" if metric_of(config) == "accuracy" else None,
        "searcher": config.searcher,
        "scheduler": config.scheduler,
        "best_trial": best,
        "best_value": trials[best].reports[-1][metric_of(config)],
        "best_settings": trials[best].point,
    }


def _rows(summary: dict[str, Any], folder: RunFolder) -> dict[str, str]:
    counts = ", ".join(f"{summary[f'trials_{status}']} {status}" for status in ("done", "stopped", "failed"))
    return {
        "trials": f"{summary['trials']}: {counts}",
        "best": f"trial {summary['best_trial']}, {summary['metric']} {summary['best_value']:.4g}",
        "its settings": shown(summary["best_settings"]),
        "updates": f"{summary['updates']} of the pixels of a batch, over all trials",
        "go on with": f"python jobs/distill.py --config {folder.shown(BEST)}",
        "tables": f"{folder.shown('trials.parquet')}, {folder.shown('reports.parquet')}",
    }
