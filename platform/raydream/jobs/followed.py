"""The driver's view of a network that learns in a separate process."""

import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import ray

from raydream.errors import StallError
from raydream.jobs.job import JobRun
from raydream.reporting.progress import Counter, device_text
from raydream.runtime.failures import own_error
from raydream.runtime.messages import NetworkReport, Notice, ReportQueue, StepsDone, StoredSnapshot
from raydream.runtime.metrics import RunMetrics
from raydream.runtime.session import beside_the_driver

POLL_S = 0.2


class LearningReport(Protocol):
    """The report of a learning process: its current network, and the figures of its last steps."""

    @property
    def snapshot(self) -> StoredSnapshot: ...
    @property
    def losses(self) -> np.ndarray: ...
    @property
    def agreements(self) -> np.ndarray: ...


Report = TypeVar("Report", bound=LearningReport)


def ended(task: ray.ObjectRef) -> Callable[[], bool]:
    """Return whether a task has ended; raises its error if it failed."""

    def done() -> bool:
        if not ray.wait([task], timeout=0)[0]:
            return False
        ray.get(task)
        return True

    return done


def record_network(run: JobRun[Any], report: NetworkReport[Any]) -> None:
    """Note and record a report of a process that changes a network."""
    now, step = time.time(), report.snapshot.step
    if report.note:
        run.journal.note(report.note)
    for name, value in report.figures.items():
        run.recorder.point(now, "student", name, value, step=step)
    for name, values in (("student/loss", report.losses), ("student/agreement", report.agreements)):
        if len(values):
            run.recorder.point(now, "student", name, float(values.mean()), step=step)


class FollowedTask(Generic[Report]):
    """Follows a learning process: records its reports, has its snapshots measured, and awaits its end.

    Args:
        run: the run of the process.
        step, steps: distillation steps done before, and in all.
        record: called with each report before it is measured.
        measure: starts to measure a report's network; see `Evaluator.measure`.
        words: describes a report, for a line of output.
        who: the network that learns, student or teacher.
        gpus: the share of a GPU that each process that learns reserves.

    Attributes:
        reports: the queue to which the process puts `Report`, `StepsDone` and `Notice`.
        metrics: gauges of the run.
        last: the newest report; None before the first.
    """

    def __init__(
        self,
        run: JobRun[Any],
        step: int,
        steps: int,
        record: Callable[[Report], None],
        measure: Callable[[Report], ray.ObjectRef],
        words: Callable[[Report], str],
        who: str = "student",
        *,
        gpus: float,
    ) -> None:
        self._run, self._step, self._steps = run, step, steps
        self._record, self._measure, self._words, self._who = record, measure, words, who
        self._where = device_text(who, gpus)
        self._counted = "distillation steps" if who == "student" else "training steps"
        self._measuring: dict[ray.ObjectRef, Report] = {}
        self._heard_at = time.monotonic()
        self.reports = ReportQueue(name="reports", scheduling_strategy=beside_the_driver())
        self.metrics = RunMetrics(run.folder.run)
        self.last: Report | None = None

    def until_end(self, done: Callable[[], bool], what: str) -> None:
        """Wait until the process has ended and all its reports are measured; show the progress.

        Args:
            done: returns whether it has ended; raises if it failed.
            what: the process's work, for an error.

        Raises:
            RaydreamError: it failed for good, or no report arrived for too long.
        """
        has_ended = False
        try:
            console = self._run.console
            with Counter(self._counted, self._step, self._steps, console, where=self._where) as counter:
                while not has_ended or self._measuring or len(self.reports):
                    self._collect_reports()
                    self._collect_measurements(counter)
                    counter.update(self._step)
                    self.metrics.set("student_step", self._step)
                    self.metrics.send()
                    has_ended = has_ended or done()
                    if not has_ended:  # measurements of what has learned to its end may take as long as they do
                        self._check_news(what)
                    time.sleep(POLL_S)
        except ray.exceptions.RayError as error:
            raise own_error(error, f"{what} failed") from error
        finally:
            self._run.recorder.flush()

    def _collect_reports(self) -> None:
        for report in self.reports.take():
            self._heard_at = time.monotonic()
            if isinstance(report, Notice):
                self._run.journal.note(report.text)
            elif isinstance(report, StepsDone):
                self._step = max(self._step, report.step)
            else:
                self._record(report)
                self.last, self._step = report, report.snapshot.step
                self._measuring[self._measure(report)] = report

    def _collect_measurements(self, counter: Counter) -> None:
        if not self._measuring:
            return
        for done in ray.wait(list(self._measuring), num_returns=len(self._measuring), timeout=0)[0]:
            self._heard_at = time.monotonic()
            report = self._measuring.pop(done)
            step, accuracies = ray.get(done)
            for name, value in accuracies.items():
                tag = f"{self._who}/accuracy_real_{name}"
                self._run.recorder.point(time.time(), "evaluator", f"accuracy/{name}", value, step=step, tag=tag)
                self.metrics.set("student_accuracy", value, split=name)
            shown = {name: f"{value:.1%}" for name, value in accuracies.items()}
            if len(report.losses):
                shown = {"loss": f"{report.losses.mean():.3f}", "agreement": f"{report.agreements.mean():.1%}"} | shown
            if shown:
                counter.say(f"{self._words(report)}  " + "  ".join(f"{name} {value}" for name, value in shown.items()))
            self._run.recorder.flush()
            self._run.folder.save()

    def _check_news(self, what: str) -> None:
        timeout_s: float = self._run.config.stall_timeout_s
        if time.monotonic() - self._heard_at > timeout_s:
            raise StallError(
                f"no news of {what} for {timeout_s:g} s (stall_timeout_s); "
                f"the last was of {self._step} of {self._steps} {self._counted}"
            )
