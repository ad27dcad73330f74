"""What the processes of a run tell each other, beside image batches.

Kept apart from what makes these messages, so that a process that only passes them on need not import torch.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.util.queue import Queue

from raydream.store.records import BatchId, Provenance, Snapshot

TELL_S = 1.0
"""between two pieces of news of the same, at least"""


@dataclass(frozen=True)
class Receipt:
    """What a generator says of a batch that it has committed; small enough for any mailbox.

    Attributes:
        provenance: of the batch.
        started_at: seconds since the epoch.
        seconds: it took, the commit included.
        curve: each loss term over the updates, as (update, value) pairs.
        notes: what did not go as asked, in sentences.
    """

    provenance: Provenance
    started_at: float
    seconds: float
    curve: dict[str, list[tuple[int, float]]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchProgress:
    """How far a generator is with a batch.

    Attributes:
        share: of its updates, in [0, 1].
    """

    batch: BatchId
    share: float


@dataclass(frozen=True)
class StepsDone:
    """How far the student is, between two of its reports.

    Attributes:
        step: distillation steps done.
    """

    step: int


@dataclass(frozen=True)
class Notice:
    """Something to be noted in the run's journal.

    Attributes:
        text: a sentence.
    """

    text: str


@dataclass(frozen=True)
class StudentReport:
    """What the student tells the driver every now and then.

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
    """What a process that changes a network tells the driver after each stage of its work, and after each epoch.

    Attributes:
        stage: what was done, in one word, such as calibrate, remove, distill or add.
        index: of the stage among its kind, from 0.
        snapshot: the network's weights now, and the steps behind them.
        shape: all that the driver needs to build such a network, beside the teacher's description; empty: nothing.
        figures: to be recorded, by the metric's name.
        losses, agreements: as in `StudentReport`, of the last epoch; empty where nothing was learned.
        note: what did not go as asked; empty otherwise.
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
    """How far one of many tasks is.

    Attributes:
        name: of the task.
        share: of it that is done, in [0, 1].
    """

    name: str
    share: float


class Throttled:
    """Tells the driver how far something is, now and then; not waited for, as whoever reads it may be slow.

    Args:
        reports: to the driver.
        message: makes what is told, at most once in `TELL_S` seconds, from what this is called with.
    """

    def __init__(self, reports: Queue, message: Callable[[Any], Any]) -> None:
        self._reports, self._message, self._told_at = reports, message, 0.0

    def __call__(self, done: Any) -> None:
        if time.monotonic() - self._told_at > TELL_S:
            self._told_at = time.monotonic()
            self._reports.actor.put_nowait.remote(self._message(done))


def drain(reports: Queue) -> list[Any]:
    """All that was told since the last time, in two calls however much it is; for a queue's only reader."""
    waiting = reports.qsize()
    told: list[Any] = reports.get_nowait_batch(waiting) if waiting else []
    return told
