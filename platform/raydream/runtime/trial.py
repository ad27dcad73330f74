"""A trial: a run at small scale in one process of Ray Tune's, from which it reports after each round.

Its student learns in the trial's own process: Ray Train would take a placement group beside the trial's, and two such
trials can wait for each other forever. So a trial holds what Tune reserved for it, makes no actor, puts nothing into
the object store, and releases everything when its process ends.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ray import tune
from torch import nn

from raydream.applications.rounds import Rounds, rounds_of
from raydream.compute import use_device
from raydream.config import DistillConfig, TeacherConfig
from raydream.config.conversion import validate
from raydream.data import Split
from raydream.errors import ShardError, SynthesisError, first_line
from raydream.evaluation.accuracy import accuracy
from raydream.evaluation.cross_model import target_shares
from raydream.evaluation.data_free import agreement, diversity, feature_distance
from raydream.networks.batch_norm import keeps_statistics
from raydream.runtime.logs import name_logs
from raydream.schedule import Schedule
from raydream.search.metrics import score_of
from raydream.search.trials import images_of
from raydream.seeds import derive_seed
from raydream.store.folders import Folder
from raydream.store.learned import LearnedStates
from raydream.store.records import ImageBatch
from raydream.store.shards import ShardStore
from raydream.synthesis.batch import BatchMaker
from raydream.synthesis.stages import updates_of
from raydream.teachers.teacher import Teacher, teacher_from_arrays

log = logging.getLogger(__name__)

FAILED_SCORE = -1e9
"""score reported to Tune's schedulers for a failed trial: worse than any other, and not NaN, which breaks them"""


@dataclass(frozen=True)
class TrialPlan:
    """Settings and data that all trials of a search share.

    Attributes:
        teacher: its description and arrays.
        verifiers: the same for each verifier.
        place: the search's folder, in which images are committed in trials/<trial>.
        exam: uint8 [N,C,H,W], images that students are examined on; None if no metric needs them.
        measures: names of `search/metrics.py: MEASURES`.
        metric: the metric of the scores.
        real: held-out images, used only to measure accuracy; None if there are none.
        images_only: whether no student is trained.
        cpus, gpus: reserved for each trial.
    """

    teacher: tuple[TeacherConfig, Mapping[str, np.ndarray]]
    verifiers: tuple[tuple[TeacherConfig, Mapping[str, np.ndarray]], ...]
    place: Folder
    exam: np.ndarray | None
    measures: frozenset[str]
    metric: str
    real: Split | None
    images_only: bool
    cpus: float
    gpus: float


class TrialRun(tune.Trainable):  # type: ignore[misc]
    """Ray Tune's view of a trial: one report a step.

    Reports of an earlier session are repeated, not computed again; a trial that had ended ends at its last report, so
    that Tune's schedulers and the sampler know all that was known.
    """

    def setup(self, config: dict[str, Any], plan: TrialPlan | None = None) -> None:
        if plan is not None:
            self._plan = plan
        name_logs("trial", config["trial"])
        self._reports = self._results(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        self.setup(config)
        return True

    def step(self) -> dict[str, Any]:
        return next(self._reports)

    def _results(self, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        recorded, last = config["recorded"], config["reports"]
        for report, values in enumerate(recorded, 1):
            ends = config["ended"] and report == len(recorded)
            yield self._result(report, values, done=ends or report == last)
        try:
            trial = TrialAtWork(self._plan, validate(DistillConfig, config["settings"]), config["trial"])
            for report, values in enumerate(trial.reports(), 1):
                if report > len(recorded):
                    yield self._result(report, values, done=report == last)
        except (SynthesisError, torch.OutOfMemoryError, MemoryError, ArithmeticError) as error:
            log.warning("failed: %s", first_line(error))
            yield {"score": FAILED_SCORE, "failed": f"{type(error).__name__}: {first_line(error)}", "done": True}
        except (OSError, ShardError) as error:  # of where it stores its images, not of its settings
            log.warning("not finished: %s", first_line(error))
            yield {"score": FAILED_SCORE, "unfinished": first_line(error), "done": True}

    def _result(self, report: int, values: dict[str, float], done: bool) -> dict[str, Any]:
        return {"report": report, "values": values, "score": score_of(self._plan.metric, values), "done": done}


class TrialAtWork:
    """A trial's run, measured at each of its reports.

    Args:
        config: of the trial.
        trial: its number.
    """

    def __init__(self, plan: TrialPlan, config: DistillConfig, trial: int) -> None:
        self._plan, self._config = plan, config
        device = use_device(config.device, plan.cpus, plan.gpus)
        self._teacher = teacher_from_arrays(*plan.teacher).to(device)
        self._verifiers = [teacher_from_arrays(*verifier).to(device) for verifier in plan.verifiers]
        self._store = ShardStore(images_of(plan.place, trial))
        for damage in self._store.quarantine_damaged():
            log.warning("%s; it is quarantined, and its batch is made again", damage)
        self._schedule = Schedule.of(config)
        self._own: np.ndarray | None = None

    def reports(self) -> Iterator[dict[str, float]]:
        """Yield what is measured after each round, or after each batch if no student is trained.

        The seconds are those since the previous report: the search's notes, which include earlier sessions, add up a
        trial's duration.

        Raises:
            SynthesisError: the inversion diverged.
            ArithmeticError: the trial's metric is not a finite number.
        """
        began = time.perf_counter()
        for rounds in self._images_alone() if self._plan.images_only else self._rounds():
            values = self._measure(rounds.student, rounds.batches)
            if not math.isfinite(values[self._plan.metric]):
                raise ArithmeticError(f"{self._plan.metric} is {values[self._plan.metric]}")
            yield values | {
                "step": rounds.step,
                "images": sum(len(batch) for batch in rounds.batches),
                "updates": updates_of(self._config.synthesis) * len(rounds.batches),
                "seconds": time.perf_counter() - began,
            }
            began = time.perf_counter()

    def _rounds(self) -> Iterator[Rounds]:
        schedule = self._schedule
        for rounds in rounds_of(self._config, self._teacher, self._store):
            # The final steps are reported once, at their end, so that all trials have the same number of reports.
            if rounds.step <= schedule.round_steps or rounds.step == schedule.total_steps:
                yield rounds

    def _images_alone(self) -> Iterator[Rounds]:
        states = LearnedStates.of(self._store.folder, self._config.synthesis.generator.chains)
        ids = self._schedule.batches_of(0)
        maker = BatchMaker("in-process", self._teacher, self._config.synthesis, states=states, batches=len(ids))
        batches: list[ImageBatch] = []
        for batch in ids:
            if not self._store.has(batch):
                self._store.write(maker.make(self._schedule.order(batch, self._config), None, None).batch)
            batches.append(self._store.read(batch))
            yield Rounds(0, self._teacher.network, batches)

    def _measure(self, student: nn.Module, batches: list[ImageBatch]) -> dict[str, float]:
        images, wanted = np.concatenate([batch.images for batch in batches]), self._plan.measures
        targets = np.concatenate([batch.targets for batch in batches])
        logits = np.concatenate([batch.teacher_logits for batch in batches])
        values = {"target_share": float((logits.argmax(1) == targets).mean())}
        if keeps_statistics(self._teacher.network):
            values["feature_distance"] = feature_distance(self._teacher, [batch.images for batch in batches])
        values["diversity"] = diversity(self._teacher, images, targets)
        if self._verifiers:
            values["verifier_agreement"] = float(np.mean([_agrees(each, batches) for each in self._verifiers]))
        if "accuracy" in wanted:
            real = self._plan.real
            assert real is not None
            values["accuracy"] = accuracy(student, self._teacher.normalization, real.images, real.labels)
        if self._plan.exam is not None:
            values["exam_agreement"] = agreement(self._teacher, student, self._plan.exam)
        if "own_agreement" in wanted:
            values["own_agreement"] = agreement(self._teacher, student, self._held_out())
        return values

    def _held_out(self) -> np.ndarray:
        """Make a batch with the trial's settings and another seed, without a student to compete with.

        A generator network is used in its state after the first round, as a copy.
        """
        if self._own is None:
            last = self._schedule.batches_of(0)[-1]
            other = replace(self._config, seed=derive_seed(self._config.seed, "held out"))
            order, states = self._schedule.order(last, other), LearnedStates(None, None)
            if self._config.synthesis.learns:
                states.commit(last, LearnedStates(self._store.folder, None).before(last).state)
                order = replace(order, after=last)
            maker = BatchMaker("in-process", self._teacher, self._config.synthesis, states=states)
            self._own = maker.make(order, None, None).batch.images
        return self._own


def _agrees(verifier: Teacher, batches: list[ImageBatch]) -> float:
    hits, images = target_shares(batches, verifier).sum(0)
    return float(hits / images)
