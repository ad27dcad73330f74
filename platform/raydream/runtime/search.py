"""The job that searches an experiment's settings; what comes out is a file that jobs/distill.py takes."""

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from raydream.command_line import Command
from raydream.config import SearchConfig
from raydream.errors import RaydreamError
from raydream.reporting import run_folder
from raydream.reporting.hyper_parameters import write_hyper_parameters
from raydream.reporting.progress import Counter, result_table
from raydream.reporting.run_folder import RunFolder
from raydream.reporting.search_report import write_search_report
from raydream.runtime.exam import make_exam
from raydream.runtime.search_preflight import CheckedSearch, check_search, check_trial_fits
from raydream.runtime.session import is_local, machine_nodes, machine_text, ray_session
from raydream.runtime.teacher import keep_teacher, with_kept_teacher
from raydream.runtime.trial import TrialPlan
from raydream.runtime.trials import Search, run_trials
from raydream.search.candidates import make_sampler
from raydream.search.metrics import MEASURES, measured, metric_of
from raydream.search.space import experiment, full_scale
from raydream.search.trials import Trials
from raydream.storage import write_aside, write_json, write_yaml
from raydream.teachers.teacher import Teacher, to_arrays

BEST = "best.yaml"
"""the experiment with the best trial's settings, as jobs/distill.py takes it"""


def search(command: Command[SearchConfig], split: str = "validation") -> dict[str, Any]:
    """Search, or go on with it; returns the summary, which is also in the run folder.

    Args:
        split: of real data on which students are measured; to choose by test data would be to report on them no more.

    Raises:
        InputError: before Ray starts and before anything is written.
        RaydreamError: not one trial came to its end.
    """
    began_at, config, console = time.time(), command.config, Console()
    if is_local():
        check_trial_fits(config, machine_nodes([]))
    checked = check_search(config, with_kept_teacher(config.teacher, command.resumed))
    folder = command.folder()
    with run_folder.held(folder):
        trials = Trials(folder.path / "trials.jsonl")
        summary = run_folder.read_summary(folder)
        if summary is None:
            _run(config, checked, folder, trials, split, console)
            summary = _outcome(config, checked, folder, trials, split, time.time() - began_at)
            write_json(folder.summary, summary)
        write_search_report(folder, config, checked.space, trials, summary)
    _show(summary, folder, console)
    return summary


def _run(
    config: SearchConfig, checked: CheckedSearch, folder: RunFolder, trials: Trials, split: str, console: Console
) -> None:
    say = partial(console.print, highlight=False, soft_wrap=True, markup=False)
    say(f"search {folder.run} in {folder.shown()}")
    teacher = keep_teacher(checked.teacher, (config.teacher, config.training, config.data), folder, say)
    (folder.path / "trials").mkdir(exist_ok=True)  # a shard's folder is made by who writes it, and its parent is not
    with contextlib.ExitStack() as session:
        session.enter_context(ray_session(partial(check_trial_fits, config), [], folder.run))
        exam = None
        if "exam_agreement" in measured(config):
            say("making the exam's images")
            exam = make_exam(config, checked.space, teacher, folder.place / "exam")
        plan = _plan(config, checked, teacher, folder, split, exam)
        counter = session.enter_context(Counter("trials", _ended(trials), checked.trials, console))
        sampler = make_sampler(config.searcher, checked.space, checked.trials, config.seed)
        tell = _Teller(config, folder, trials, counter)
        run_trials(Search(config, checked.space, checked.trials, sampler, trials, tell.ended, tell.reported), plan)


def _plan(
    config: SearchConfig, checked: CheckedSearch, teacher: Teacher, folder: RunFolder, split: str, exam: Any
) -> TrialPlan:
    return TrialPlan(
        run=folder.run,
        teacher=(config.teacher, to_arrays(teacher.network)),
        verifiers=tuple((each.config, to_arrays(each.network)) for each in checked.verifiers),
        place=folder.place,
        exam=exam,
        measures=frozenset(measured(config)),
        metric=metric_of(config),
        split=split,
        images_only=config.images_only,
        cpus=config.trial.cpus,
        gpus=config.trial.gpus,
    )


class _Teller:
    """Tells the user of trials as they report and end, and keeps best.yaml at what is best so far."""

    def __init__(self, config: SearchConfig, folder: RunFolder, trials: Trials, counter: Counter) -> None:
        self._config, self._folder, self._trials, self._counter = config, folder, trials, counter
        self._metric = metric_of(config)
        self._best = trials.best(self._metric)

    def reported(self, trial: int) -> None:
        self._folder.save()

    def ended(self, trial: int) -> None:
        known, best = self._trials[trial], self._trials.best(self._metric)
        if best is not None and best != self._best:
            self._best = best
            write_best(self._folder.path / BEST, self._config, self._trials, best)
        if known.status == "failed":
            self._counter.say(f"trial {trial} failed: {known.reason}")
        else:
            last = known.reports[-1]
            ahead = (
                f"best: trial {best}, {self._trials[best].reports[-1][self._metric]:.4g}" if best is not None else ""
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


def _outcome(
    config: SearchConfig, checked: CheckedSearch, folder: RunFolder, trials: Trials, split: str, wall_s: float
) -> dict[str, Any]:
    """Write the tables, and return the final figures."""
    metric = metric_of(config)
    table = trials.table(metric)
    write_aside(folder.path / "reports.parquet", lambda aside: table.to_parquet(aside, index=False))
    last = table[table["last"]]
    write_aside(folder.path / "trials.parquet", lambda aside: last.to_parquet(aside, index=False))
    best = trials.best(metric)
    if best is None:
        reasons = next((trial.reason for _, trial in trials.items() if trial.reason), "all were stopped")
        raise RaydreamError(f"not one of {len(last)} trials came to its end, the first because: {reasons}")
    write_best(folder.path / BEST, config, trials, best)
    write_hyper_parameters(folder.tensorboard, trials, metric)
    return {
        "metric": metric,
        "metric_is": MEASURES[metric].what,
        "split": split if metric == "accuracy" else None,
        "searcher": config.searcher,
        "scheduler": config.scheduler,
        "seed": config.seed,
        "trials": len(last),
        **{f"trials_{status}": trials.count(status) for status in ("done", "stopped", "failed")},
        "best_trial": best,
        "best_value": trials[best].reports[-1][metric],
        "best_settings": trials[best].point,
        "updates": int(last["updates"].sum()),
        "trial_seconds": float(last["seconds"].sum()),
        "wall_s": wall_s,
        **machine_text(),
    }


def _show(summary: dict[str, Any], folder: RunFolder, console: Console) -> None:
    counts = ", ".join(f"{summary[f'trials_{status}']} {status}" for status in ("done", "stopped", "failed"))
    rows = {
        "trials": f"{summary['trials']}: {counts}",
        "best": f"trial {summary['best_trial']}, {summary['metric']} {summary['best_value']:.4g}",
        **{
            name: f"{value:.4g}" if isinstance(value, float) else f"{value}"
            for name, value in summary["best_settings"].items()
        },
        "updates": f"{summary['updates']} of the pixels of a batch, over all trials",
        "seconds": f"{summary['wall_s']:.0f}",
        "go on with": f"python jobs/distill.py --config {folder.shown(BEST)}",
        "tables": f"{folder.shown('trials.parquet')}, {folder.shown('reports.parquet')}",
        "report": folder.shown("search.html"),
    }
    console.print(result_table(rows))
