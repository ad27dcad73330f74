"""Trials run by Ray Tune: which is next, what it reports, and how it ends, all of it noted in the search's folder.

Tune's own files (pickles among them) lie in a folder that is deleted after the session, and are never read.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from raydream.config import DistillConfig, SearchConfig
from raydream.config.conversion import as_dict
from raydream.errors import InputError, RaydreamError
from raydream.runtime.failures import last_line
from raydream.runtime.trial import TrialPlan, TrialRun
from raydream.search.candidates import Sampler
from raydream.search.metrics import metric_of
from raydream.search.space import Point, Space, config_at
from raydream.search.trials import Trials

TUNE_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends a search as it ends every job
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # what trials report is written by the search
    "RAY_AIR_NEW_OUTPUT": "0",  # the old one can be silent
}
"""environment variables"""


@dataclass(frozen=True)
class Search:
    """A search in progress.

    Attributes:
        config, space: the settings to search, and their ranges.
        count: number of trials.
        sampler: proposes their settings.
        trials: their records.
        ended: called with the number of each trial that has ended.
        reported: called with the number of each trial that has reported.

    Attributes:
        unfinished: the trials that a cause outside of them has ended, with the cause. They are not noted as ended, so
            a resumed search continues them.
    """

    config: SearchConfig
    space: Space
    count: int
    sampler: Sampler
    trials: Trials
    ended: Callable[[int], None]
    reported: Callable[[int], None]
    unfinished: dict[int, str] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """Return the name of the objective metric."""
        return metric_of(self.config)

    def inform_sampler(self, trial: int) -> None:
        """Report to the sampler how a trial ended."""
        known = self.trials[trial]
        self.sampler.tell(trial, known.point, known.scores(self.metric), known.status == "done")

    def fail(self, trial: int, reason: str) -> None:
        """Note that a trial failed."""
        self.trials.end(trial, "failed", reason)
        self.inform_sampler(trial)
        self.ended(trial)


def reports_of(config: DistillConfig, images_only: bool) -> int:
    """Return the number of a trial's reports: after each round and the final steps, or after each batch of images."""
    if images_only:
        return config.rounds.initial_batches
    return config.rounds.count + (config.rounds.final_steps > 0)


def run_trials(search: Search, plan: TrialPlan) -> None:
    """Run all trials that have not ended, in parallel as far as there is room.

    Raises:
        KeyboardInterrupt: after an interruption; all reports are noted.
        RaydreamError: a trial could not store its images, and is unfinished.
    """
    os.environ.update(TUNE_SETTINGS)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the search itself reports what happens to trials
    config = search.config.trial
    resources = {"cpu": config.cpus, "gpu": config.gpus}
    trainable = tune.with_resources(tune.with_parameters(TrialRun, plan=plan), resources)
    with tempfile.TemporaryDirectory(prefix="raydream-tune-") as passing:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                search_alg=_Candidates(search),
                scheduler=_scheduler(search),
                num_samples=search.count,
                max_concurrent_trials=config.concurrent or 0,
                reuse_actors=True,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=passing,
                verbose=0,
                callbacks=[_Notes(search)],
                # A trial whose process dies (a node lost, memory) gets one more try; the batches that it made are kept.
                failure_config=tune.FailureConfig(max_failures=1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    if search.unfinished:
        numbers = ", ".join(str(number) for number in sorted(search.unfinished))
        raise RaydreamError(f"trials that are not finished: {numbers} ({next(iter(search.unfinished.values()))})")


def _name(trial: Any) -> str:
    return f"{trial.config['trial']:04d}"


def _scheduler(search: Search) -> TrialScheduler:
    if search.config.scheduler == "asha":
        at_most = max(2, _most_reports(search))
        return ASHAScheduler(time_attr="report", grace_period=1, reduction_factor=3, max_t=at_most)
    if search.config.scheduler == "median":
        # Trials are never paused for others: a paused trial must be kept where all nodes find it.
        return MedianStoppingRule("report", grace_period=1, min_samples_required=3, min_time_slice=10**9)
    return FIFOScheduler()


def _most_reports(search: Search) -> int:
    """Return the most reports of any trial, as the number of rounds may itself be searched."""
    rounds = ("rounds.count", "rounds.initial_batches")
    most = [int(max(each.values)) + 1 for each in search.space.dimensions if each.name in rounds]
    return max([reports_of(config_at(search.config, search.space, {}), search.config.images_only), *most])


class _Unpickled:
    """An object whose content is left out of Tune's pickles, which are never read."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Candidates(_Unpickled, Searcher):  # type: ignore[misc]
    """Gives trials to Tune in the order of their numbers, those of earlier sessions with their records."""

    def __init__(self, search: Search) -> None:
        super().__init__(metric="score", mode="max")
        self._search, self._next = search, 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        search = self._search
        while self._next < search.count:
            number, self._next = self._next, self._next + 1
            if number not in search.trials:
                search.trials.begin(number, search.sampler.ask(number))
            known = search.trials[number]
            if known.status == "failed" or (known.status != "running" and search.config.scheduler == "none"):
                # A trial that repeats its reports informs the schedulers that compare trials.
                search.inform_sampler(number)
                continue
            try:
                return self._trial(number, known.point)
            except InputError as error:
                search.fail(number, str(error))
        return str(Searcher.FINISHED)

    def _trial(self, number: int, point: Point) -> dict[str, Any]:
        known, config = self._search.trials[number], config_at(self._search.config, self._search.space, point)
        return {
            "trial": number,
            "settings": as_dict(config),
            "reports": reports_of(config, self._search.config.images_only),
            "recorded": list(known.reports),
            "ended": known.status != "running",
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: `_Notes` reports trials to the sampler."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a search resumes from its own notes."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing."""


class _Notes(_Unpickled, tune.Callback):  # type: ignore[misc]
    """Notes the reports of trials and how they end."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        number = trial.config["trial"]
        if "failed" in result:
            self._search.fail(number, result["failed"])
            return
        if "unfinished" in result:
            self._search.unfinished[number] = result["unfinished"]
            return
        self._search.trials.report(number, result["report"] - 1, result["values"])
        self._search.reported(number)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        number = trial.config["trial"]
        known = self._search.trials[number]
        if known.status == "failed":
            return
        if number in self._search.unfinished:
            self._search.inform_sampler(number)
            return
        first = known.status == "running"
        whole = len(known.reports) == trial.config["reports"]
        self._search.trials.end(number, "done" if whole else "stopped")
        self._search.inform_sampler(number)
        if first:
            self._search.ended(number)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._search.fail(trial.config["trial"], last_line(trial.get_error() or "") or "its process died")
