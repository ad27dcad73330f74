"""The messages between the processes of a run, other than image batches.

Separate from the modules that make these messages, so that a process that only forwards them need not import torch.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
import ray

from raydream.store.records import BatchId, Provenance, Snapshot

REPORT_S = 1.0
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
class StoredSnapshot:
    """A snapshot in Ray's object store.

    Attributes:
        step: number of distillation steps done.
        ref: reference to the `Snapshot`.
    """

    step: int
    ref: ray.ObjectRef

    def fetch(self) -> Snapshot:
        """Return the snapshot; its arrays lie in the object store, read-only. Raises RayError."""
        snapshot: Snapshot = ray.get(self.ref)
        return snapshot


Weights = TypeVar("Weights", Snapshot, StoredSnapshot)


@dataclass(frozen=True)
class StudentReport(Generic[Weights]):
    """The student's periodic report to the driver.

    Attributes:
        snapshot: its weights now; a `Snapshot` from the student, a `StoredSnapshot` out of a `ReportQueue`.
        first_step: of the steps below.
        losses, agreements, learning_rates: per step since the last report; agreement is the share of views on which
            student and teacher name the same class.
        waited_s: spent waiting for images since the last report.
        busy: (start, seconds) of the stretches without a wait, in seconds since the epoch.
    """

    snapshot: Weights
    first_step: int
    losses: np.ndarray
    agreements: np.ndarray
    learning_rates: np.ndarray
    waited_s: float
    busy: list[tuple[float, float]]


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True)
class NetworkReport(Generic[Weights]):
    """The report to the driver, after each stage and each epoch, of a process that changes a network.

    Attributes:
        stage: what was done, in one word, such as calibrate, remove, distill or add.
        index: of the stage among its kind, from 0.
        snapshot: the network's current weights and number of steps, as in `StudentReport`.
        shape: what the driver needs, beside the teacher's description, to build the network; empty: nothing.
        figures: to be recorded, by the metric's name.
        losses, agreements: as in `StudentReport`, of the last epoch; empty where nothing was learned.
        note: a deviation from the settings, in a sentence; else empty.
    """

    stage: str
    index: int
    snapshot: Weights
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


class ReportActor:
    """Keeps reports until the driver takes them, and puts each network among them into the object store.

    So a network is this actor's object, which lives next to the driver: it outlives the worker that reported it.
    """

    def __init__(self) -> None:
        self._reports: list[Any] = []

    def put(self, report: Any) -> None:
        """Add a report."""
        if isinstance(report, StudentReport | NetworkReport):
            snapshot = StoredSnapshot(report.snapshot.step, ray.put(report.snapshot))
            report = replace(report, snapshot=snapshot)
        self._reports.append(report)

    def take(self) -> list[Any]:
        """Return all reports since the last call."""
        reports, self._reports = self._reports, []
        return reports

    def count(self) -> int:
        """Return the number of reports that the next `take` returns."""
        return len(self._reports)


class ReportQueue:
    """Carries reports from all processes of a run to the driver, in each sender's order.

    Args:
        options: of its actor, which reserves no CPU.
    """

    def __init__(self, **options: Any) -> None:
        self._actor = ray.remote(num_cpus=0)(ReportActor).options(**options).remote()

    def put(self, report: Any) -> None:
        """Add a report; when this returns, the report no longer depends on the process that made it."""
        ray.get(self._actor.put.remote(report))

    def send(self, report: Any) -> None:
        """Add a report without waiting; it is lost if this process ends too soon."""
        self._actor.put.remote(report)

    def take(self) -> list[Any]:
        """Return all reports since the last call, each network as a `StoredSnapshot`; for the queue's only reader."""
        reports: list[Any] = ray.get(self._actor.take.remote())
        return reports

    def __len__(self) -> int:
        count: int = ray.get(self._actor.count.remote())
        return count


class Throttled:
    """Reports progress to the driver at intervals, without waiting for the driver to read it.

    Args:
        reports: to the driver.
        message: makes the report from the arguments of the call, at most once in `REPORT_S` seconds.
    """

    def __init__(self, reports: ReportQueue, message: Callable[[Any], Any]) -> None:
        self._reports, self._message, self._sent_at = reports, message, 0.0

    def __call__(self, done: Any) -> None:
        if time.monotonic() - self._sent_at > REPORT_S:
            self._sent_at = time.monotonic()
            self._reports.send(self._message(done))
