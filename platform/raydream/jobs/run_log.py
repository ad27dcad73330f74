"""Reports of a run in progress: curves and spans for its folder, the display, and gauges for Prometheus."""

import time
from collections.abc import Mapping

import numpy as np

from raydream.buffer.limiter import Progress
from raydream.config import DistillConfig
from raydream.jobs.job import JobRun
from raydream.reporting.progress import Display
from raydream.reporting.waits import LongWaits
from raydream.runs.recorder import Place, Recorder
from raydream.runtime.messages import BatchProgress, Receipt, StudentReport
from raydream.runtime.metrics import RunMetrics
from raydream.runtime.pool import GeneratorPool
from raydream.schedule import Schedule
from raydream.store.records import BatchId
from raydream.synthesis.stages import learning_rate_at, updates_of

TOLD_WHOLE = 8
"""number of batches per round of which curves and layer distances are kept: a run of a hundred thousand batches
would otherwise have tens of millions of rows"""
STEPS_PER_ROW = 10
"""distillation steps between two rows of the student's curves"""


def record_student(recorder: Recorder, report: StudentReport, part: int) -> None:
    """Record the curves of a student's report, and its busy spans.

    Args:
        part: the round or epoch that its steps belong to.
    """
    now = time.time()
    for start, seconds in report.busy:
        recorder.span(start, seconds, "student", "train", Place(part))
    for offset in range(0, len(report.losses), STEPS_PER_ROW):
        for name, values in (
            ("student/loss", report.losses),
            ("student/agreement", report.agreements),
            ("student/learning_rate", report.learning_rates),
        ):
            recorder.point(now, "student", name, values[offset], step=report.first_step + offset)
    recorder.point(now, "student", "student/waited_s", report.waited_s, step=report.snapshot.step)


class RunLog:
    """Counts a run's batches and steps, and reports them to the display, the run's folder and Prometheus.

    Args:
        run: to report.
        schedule: of its batches.
        committed: batches that existed when this session began.
        display: shows the progress.
    """

    def __init__(
        self,
        run: JobRun[DistillConfig],
        schedule: Schedule,
        committed: int,
        display: Display,
    ) -> None:
        self._config, self._schedule = run.config, schedule
        self._recorder, self._display, self._metrics = run.recorder, display, RunMetrics(run.folder.run)
        self._committed = self._found = committed
        self._step: int | None = None
        self._student_restarts = 0
        self._making_since = 0.0
        self._waits = LongWaits(display.say)
        display.update(stage="starting processes")

    def batch_progressed(self, progress: BatchProgress) -> None:
        """Report a generator's progress with a batch."""
        self._display.state.making[str(progress.batch)] = progress.share

    def batch_made(self, batch: BatchId, receipt: Receipt, shown: np.ndarray | None) -> None:
        """Report that a batch is committed.

        Args:
            shown: its images, uint8 [N,C,H,W], if TensorBoard shows them.
        """
        made, recorder, now = receipt.provenance, self._recorder, time.time()
        self._committed += 1
        self._display.state.making.pop(str(batch), None)
        source, place = f"generator-{made.generator}", Place(batch.round, str(batch))
        step = self._step or 0
        position, updates = self._schedule.position(batch), updates_of(self._config.synthesis)
        recorder.span(receipt.started_at, receipt.seconds, source, "make", place)
        last = {"target_share": made.target_share}
        if batch.index < TOLD_WHOLE:
            for term, curve in receipt.curve.items():
                for update, value in curve:
                    event = position * updates + update
                    recorder.point(now, source, f"loss/{term}", value, step=update, event_step=event, place=place)
            for update, _ in next(iter(receipt.curve.values()), []):
                rate, event = learning_rate_at(self._config.synthesis, update), position * updates + update
                recorder.point(now, source, "synthesis/learning_rate", rate, step=update, event_step=event, place=place)
            last |= {f"distance/{layer}": value for layer, value in made.distances.items()}
        if made.student_step is not None:
            last["staleness_steps"] = max(0, step - made.student_step)
            self._metrics.set("staleness_steps", last["staleness_steps"])
        for name, value in last.items():
            recorder.point(now, source, name, value, step=step, event_step=position, place=place)
        if shown is not None:
            recorder.grid("images", shown, batch.round)

    def student_reported(self, report: StudentReport) -> None:
        """Report that the student has advanced, or was restarted from an earlier step."""
        now, recorder, step = time.time(), self._recorder, report.snapshot.step
        self._student_restarts += self._step is not None and step <= self._step
        self._step = step
        record_student(recorder, report, self._schedule.round_of_step(report.first_step))
        beyond = self._images - self._schedule.initial_batches * self._schedule.batch_images
        # The first round's steps precede all batches beyond the minimum fill; the final ones follow all batches.
        before_final = min(step, self._schedule.round_steps) - self._schedule.steps_per_round
        ratio = {"buffer/samples_per_insert": before_final * self._schedule.draw / beyond} if beyond > 0 else {}
        for name, value in {
            "buffer/images": self._images,
            "images_per_s": self._images_per_s,
            **ratio,
        }.items():
            recorder.point(now, "buffer" if "buffer" in name else "student", name, value, step=step)

    def student_measured(self, step: int, accuracies: dict[str, float]) -> None:
        """Report a snapshot's accuracies, in [0, 1], by what they were measured on."""
        for name, value in accuracies.items():
            self._recorder.point(time.time(), "evaluator", f"accuracy/{name}", value, step=step)
            self._metrics.set("student_accuracy", value, split=name)
        shown = {**self._display.state.accuracy, **accuracies}
        self._display.update(accuracy=shown, step=step, round=self._schedule.round_of_step(step))
        if "synthetic" not in accuracies:
            self._display.round_ended()

    def stands(self, progress: Progress, pool: GeneratorPool, making: bool, waits: Mapping[str, str]) -> None:
        """Show the current state of the run.

        Args:
            making: whether batches are in progress or remain to be made.
            waits: see `LongWaits.update`.
        """
        waiting = self._waits.update(waits)
        if pool.in_flight and not self._making_since:
            self._making_since = time.time()
        self._tell_metrics(progress, pool)
        if self._step is None and progress.drawn_steps == 0:
            stage = "making the first images, starting the student"
        else:
            stage = "making images and learning" if making else "learning from all images"
        if waiting:
            stage += f"; {waiting}"
        self._display.update(
            stage=stage,
            step=max(self._step or 0, progress.drawn_steps - self._config.buffer.block_steps),
            images=self._images,
            generators=len(pool.in_flight),
            images_per_s=self._images_per_s,
            seconds=self._recorder.time_s(time.time()),
        )

    def _tell_metrics(self, progress: Progress, pool: GeneratorPool) -> None:
        metrics = self._metrics
        metrics.set("images", self._images)
        metrics.set("images_per_s", self._images_per_s)
        metrics.set("buffer_batches", progress.held)
        metrics.set("batches_in_flight", len(pool.in_flight))
        metrics.set("generators", pool.at_hand)
        metrics.set("restarts", pool.lost, role="generator")
        metrics.set("restarts", self._student_restarts, role="student")
        metrics.set("student_step", self._step or 0)
        metrics.set("waiting_s", self._waits.longest_s)
        metrics.tell()

    @property
    def _images(self) -> int:
        return self._committed * self._schedule.batch_images

    @property
    def _images_per_s(self) -> float:
        seconds = time.time() - self._making_since if self._making_since else 0.0
        return (self._committed - self._found) * self._schedule.batch_images / seconds if seconds else 0.0
