"""The job that searches an experiment's settings; the result is a file that jobs/distill.py takes."""

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from raydream.cli import Command
from raydream.config import SearchConfig
from raydream.errors import RaydreamError
from raydream.jobs.checks.search import CheckedSearch, check_search, check_trial_fits
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.teacher import with_kept_teacher
from raydream.reporting.cost import hours
from raydream.reporting.hyper_parameters import write_hyper_parameters
from raydream.reporting.progress import Counter, waiting
from raydream.reporting.search_report import write_search_report
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import SearchSummary
from raydream.runtime.exam import make_exam
from raydream.runtime.gpus import idle_gpus
from raydream.runtime.session import device_of_driver, is_local, machine_nodes, ray_session
from raydream.runtime.trial import TrialPlan
from raydream.runtime.trials import Search, run_trials
from raydream.search.candidates import make_sampler
from raydream.search.metrics import MEASURES, measured, metric_of
from raydream.search.space import experiment, full_scale, shown, space_of
from raydream.search.trials import Trials
from raydream.store.atomic import write_atomically
from raydream.store.yaml_files import write_yaml
from raydream.teachers.teacher import Teacher, to_arrays

BEST = "best.yaml"
"""the experiment with the best trial's settings, as jobs/distill.py takes it"""


@dataclass(frozen=True)
class CheckedTrials:
    """The trials to run, and the findings of the checks.

    Attributes:
        config: of the trials.
        split: the split of real data that students are measured on.
        chooses: whether the best trial's settings are kept as best.yaml, on which `split` must not be test.
    """

    config: SearchConfig
    checked: CheckedSearch
    split: str
    chooses: bool


def search(command: Command[SearchConfig]) -> SearchSummary:
    """Search the settings of an experiment, or resume; see `carry_out`."""
    return carry_out(JOB, command)


def check_trials(config: SearchConfig, resumed: RunFolder | None, say: Say, split: str, chooses: bool) -> CheckedTrials:
    """Check that trials can be run; see `CheckedTrials`. Raises InputError."""
    if is_local():
        nodes = machine_nodes([])
        check_trial_fits(config, nodes)
        if notice := idle_gpus(config.device, {"trial.gpus": config.trial.gpus}, nodes):
            say(notice)
    return CheckedTrials(config, check_search(config, with_kept_teacher(config.teacher, resumed)), split, chooses)


def run_all(run: JobRun[Any], checked: CheckedTrials) -> Trials:
    """Run the trials that are missing, and write their tables; raises RaydreamError."""
    config, folder = checked.config, run.folder
    trials = trials_of(folder)
    teacher = run.teacher(checked.checked.teacher, device_of_driver(config.device, [config.trial.gpus]))
    (folder.path / "trials").mkdir(exist_ok=True)  # a shard's folder is made by its writer, but its parent is not
    with contextlib.ExitStack() as session:
        with run.stage("start", "Ray to start"):
            session.enter_context(ray_session(partial(check_trial_fits, config), [], folder.run))
        with run.stage("trials"):
            _run_missing(run, checked, teacher, trials)
    _write_tables(folder, trials.table(metric_of(config)))
    return trials


def trials_of(folder: RunFolder) -> Trials:
    """Return the trials of a search."""
    return Trials(folder.path / "trials.jsonl")


def _run_missing(run: JobRun[Any], checked: CheckedTrials, teacher: Teacher, trials: Trials) -> None:
    config, found, folder = checked.config, checked.checked, run.folder
    exam = None
    if "exam_agreement" in measured(config):
        run.say("making the exam's images")
        with waiting("the exam's images", run.console):
            exam = make_exam(config, found.space, teacher, folder.place / "exam")
    plan = _plan(config, found, teacher, folder, checked.split, exam)
    sampler = make_sampler(config.searcher, found.space, found.trials, config.seed)
    with Counter("trials", _ended(trials), found.trials, run.console) as counter:
        shown = _TrialReporter(config, folder, trials, counter, checked.chooses)
        with waiting("trials to end", run.console):
            run_trials(Search(config, found.space, found.trials, sampler, trials, shown.ended, shown.reported), plan)


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


class _TrialReporter:
    """Shows the reports and ends of trials, and keeps best.yaml at the best trial so far."""

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
            line = f"trial {trial}: {self._metric} {last[self._metric]:.4g}{stopped}, {last['seconds']:.0f} s"
            self._counter.say(f"{line}  ({ahead})" if ahead else line)
        self._counter.update(_ended(self._trials))
        self._folder.save()


def write_best(path: Path, config: SearchConfig, trials: Trials, best: int) -> None:
    """Write the experiment, at its original scale, with the settings of a trial; raises OSError."""
    write_yaml(path, experiment(full_scale(config, trials[best].point)))


def _ended(trials: Trials) -> int:
    return len(trials.items()) - trials.count("running")


def _write_tables(folder: RunFolder, table: pd.DataFrame) -> None:
    for name, rows in (("reports.parquet", table), ("trials.parquet", table[table["last"]])):
        write_atomically(folder.path / name, lambda temporary, rows=rows: rows.to_parquet(temporary, index=False))  # type: ignore[misc]


def spent(config: SearchConfig, trials: Trials) -> dict[str, Any]:
    """Return the number of trials, how they ended, and their cost; raises RaydreamError if none ended.

    Returns:
        figures for a summary; updates are pixel updates of batches, over all trials.
    """
    if not trials.count("done"):
        reasons = next((trial.reason for _, trial in trials.items() if trial.reason), "all were stopped")
        raise RaydreamError(f"none of {len(trials.items())} trials finished: {reasons}")
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


def _check(config: SearchConfig, resumed: RunFolder | None, say: Say) -> tuple[SearchConfig, CheckedTrials]:
    return config, check_trials(config, resumed, say, split="validation", chooses=True)


def _make(run: JobRun[SearchConfig], checked: CheckedTrials) -> SearchSummary:
    config, trials = run.config, run_all(run, checked)
    counted, best = spent(config, trials), trials.best(metric_of(config))
    assert best is not None
    write_best(run.folder.path / BEST, config, trials, best)
    write_hyper_parameters(run.folder.events, trials, metric_of(config))
    return SearchSummary(
        **counted,
        split="validation" if metric_of(config) == "accuracy" else None,
        searcher=config.searcher,
        scheduler=config.scheduler,
        best_trial=best,
        best_value=trials[best].reports[-1][metric_of(config)],
        best_settings=trials[best].point,
    )


def _report(folder: RunFolder, config: SearchConfig, summary: SearchSummary) -> None:
    write_search_report(folder, config, space_of(config), trials_of(folder), summary)


def _rows(summary: SearchSummary) -> dict[str, str]:
    counts = f"{summary.trials_done} done, {summary.trials_stopped} stopped, {summary.trials_failed} failed"
    return {
        "trials": f"{summary.trials}: {counts}",
        "best": f"trial {summary.best_trial}, {summary.metric} {summary.best_value:.4g}",
        "its settings": shown(summary.best_settings),
        "updates": f"{summary.updates} of the pixels of a batch, over all trials",
    }


JOB = Job(
    name="search",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={
        "best experiment": BEST,
        "table of trials": "trials.parquet",
        "reports of trials": "reports.parquet",
        "report": "search.html",
    },
    figures=None,
)
