"""The messages between the processes of a run, other than image batches.

Separate from the modules that make these messages, so that a process that only forwards them need not import torch.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.util.queue import Queue

from raydream.store.records import BatchId, Provenance, Snapshot

TELL_S = 1.0
"""least seconds between two reports of the same thing"""


@dataclass(frozen=True)
class Receipt:
    """A generator's report of a batch that it has committed; small enough for any queue.

    Attributes:
        provenance: of the batch.
        started_at: seconds since the epoch.
        seconds: duration, including the commit.
        curve: each loss term over the updates, as (update, value) pairs.
        notes: deviations from the settings, in sentences.
    """

    provenance: Provenance
    started_at: float
    seconds: float
    curve: dict[str, list[tuple[int, float]]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchProgress:
    """A generator's progress with a batch.

    Attributes:
        share: of its updates that are done, in [0, 1].
    """

    batch: BatchId
    share: float


@dataclass(frozen=True)
class StepsDone:
    """The student's progress, between two of its reports.

    Attributes:
        step: distillation steps done.
    """

    step: int


@dataclass(frozen=True)
class Notice:
    """An entry for the run's journal.

    Attributes:
        text: a sentence.
    """

    text: str


@dataclass(frozen=True)
class StudentReport:
    """The student's periodic report to the driver.

    Attributes:
        snapshot: its weights now.
        first_step: of the steps below.
        losses, agreements, learning_rates: per step since the last report; agreement is the share of views on which
            student and teacher name the same class.
        waited_s: spent waiting for images since the last report.
        busy: (start, seconds) of the stretches without a wait, in seconds since the epoch.
    """

    snapshot: Snapshot
    first_step: int
    losses: np.ndarray
    agreements: np.ndarray
    learning_rates: np.ndarray
    waited_s: float
    busy: list[tuple[float, float]]


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True)
class NetworkReport:
    """The report to the driver, after each stage and each epoch, of a process that changes a network.

    Attributes:
        stage: what was done, in one word, such as calibrate, remove, distill or add.
        index: of the stage among its kind, from 0.
        snapshot: the network's current weights and number of steps.
        shape: what the driver needs, beside the teacher's description, to build the network; empty: nothing.
        figures: to be recorded, by the metric's name.
        losses, agreements: as in `StudentReport`, of the last epoch; empty where nothing was learned.
        note: a deviation from the settings, in a sentence; else empty.
    """

    stage: str
    index: int
    snapshot: Snapshot
    shape: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    losses: np.ndarray = field(default_factory=_none)
    agreements: np.ndarray = field(default_factory=_none)
    note: str = ""


@dataclass(frozen=True)
class TaskProgress:
    """The progress of one of many tasks.

    Attributes:
        name: of the task.
        share: of it that is done, in [0, 1].
    """

    name: str
    share: float


class Throttled:
    """Reports progress to the driver at intervals, without waiting for the driver to read it.

    Args:
        reports: to the driver.
        message: makes the report from the arguments of the call, at most once in `TELL_S` seconds.
    """

    def __init__(self, reports: Queue, message: Callable[[Any], Any]) -> None:
        self._reports, self._message, self._told_at = reports, message, 0.0

    def __call__(self, done: Any) -> None:
        if time.monotonic() - self._told_at > TELL_S:
            self._told_at = time.monotonic()
            self._reports.actor.put_nowait.remote(self._message(done))


def drain(reports: Queue) -> list[Any]:
    """Return all reports since the last call, in two Ray calls whatever their number; for a queue's only reader."""
    waiting = reports.qsize()
    told: list[Any] = reports.get_nowait_batch(waiting) if waiting else []
    return told
