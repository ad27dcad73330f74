"""Reports of a run in progress: curves and spans for its folder, the display, and gauges for Prometheus."""

import time
from collections.abc import Mapping
from typing import Any

from raydream.buffer.limiter import Progress
from raydream.config import DistillConfig, SynthesisConfig
from raydream.data.sources import evenly_spread
from raydream.jobs.job import JobRun
from raydream.reporting.progress import Display
from raydream.reporting.waits import LongWaits
from raydream.runs.recorder import Place, Recorder
from raydream.runtime.messages import BatchProgress, Receipt, StudentReport
from raydream.runtime.metrics import RunMetrics
from raydream.runtime.pool import GeneratorPool
from raydream.schedule import Schedule
from raydream.store.records import BatchId, ImageBatch
from raydream.synthesis.stages import learning_rate_at

CURVED_ROUNDS = 12
"""most rounds, evenly spread, of which the inversion of the first batch is shown as a curve"""
KEPT_WHOLE = 8
"""number of batches per round of which curves and layer distances are kept: a run of a hundred thousand batches
would otherwise have tens of millions of rows"""
STEPS_PER_ROW = 10
"""distillation steps between two rows of the student's curves"""


def record_student(recorder: Recorder, report: StudentReport[Any], part: int, who: str = "student") -> None:
    """Record the curves of a student's report, and its busy spans.

    Args:
        part: the round or epoch that its steps belong to.
        who: the network that learns, student or teacher.
    """
    now = time.time()
    for start, seconds in report.busy:
        recorder.span(start, seconds, who, "train", Place(part))
    for offset in range(0, len(report.losses), STEPS_PER_ROW):
        for name, values in (
            ("loss", report.losses),
            ("agreement", report.agreements),
            ("learning_rate", report.learning_rates),
        ):
            recorder.point(now, who, f"{who}/{name}", values[offset], step=report.first_step + offset)
    recorder.point(now, who, f"{who}/waited_s", report.waited_s, step=report.snapshot.step)


def show_batch(
    recorder: Recorder, synthesis: SynthesisConfig, receipt: Receipt, made: int, first: ImageBatch | None, curved: bool
) -> None:
    """Show a batch in TensorBoard and other trackers.

    Args:
        made: number of batches that the run has made, this one included.
        first: the batch, if it is the first of its round, whose images are shown; else None.
        curved: whether the curves of that first batch are shown, too, as those of its round.
    """
    now, provenance = time.time(), receipt.provenance
    recorder.show(now, "batches/target_share", provenance.target_share, made)
    if provenance.distances:
        recorder.show(now, "batches/feature_distance", sum(provenance.distances.values()), made)
    if first is None:
        return
    recorder.pictures(first.images, first.targets, first.id.round)
    for layer, value in provenance.distances.items():
        recorder.show(now, f"teacher_layers/{layer}", value, made)
    if not curved:
        return
    name = f"round-{first.id.round:04d}"
    for term, curve in receipt.curve.items():
        for update, value in curve:
            recorder.show(now, f"synthesis/{term}/{name}", value, update)
    for update, _ in next(iter(receipt.curve.values()), []):
        recorder.show(now, f"synthesis/learning_rate/{name}", learning_rate_at(synthesis, update), update)


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
        self._curved = set(evenly_spread(range(schedule.rounds + 1), CURVED_ROUNDS))
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

    def batch_made(self, batch: BatchId, receipt: Receipt, first: ImageBatch | None) -> None:
        """Report that a batch is committed.

        Args:
            first: the batch, if it is the first of its round, whose images are shown; else None.
        """
        made, recorder, now = receipt.provenance, self._recorder, time.time()
        self._committed += 1
        self._display.state.making.pop(str(batch), None)
        source, place = f"generator-{made.generator}", Place(batch.round, str(batch))
        step = self._step or 0
        recorder.span(receipt.started_at, receipt.seconds, source, "make", place)
        last = {"target_share": made.target_share}
        if batch.index < KEPT_WHOLE:
            for term, curve in receipt.curve.items():
                for update, value in curve:
                    recorder.row(now, source, f"loss/{term}", value, step=update, place=place)
            for update, _ in next(iter(receipt.curve.values()), []):
                rate = learning_rate_at(self._config.synthesis, update)
                recorder.row(now, source, "synthesis/learning_rate", rate, step=update, place=place)
            last |= {f"distance/{layer}": value for layer, value in made.distances.items()}
        if made.student_step is not None:
            last["staleness_steps"] = max(0, step - made.student_step)
            self._metrics.set("staleness_steps", last["staleness_steps"])
            recorder.show(now, "system/staleness_steps", last["staleness_steps"], self._committed)
        for name, value in last.items():
            recorder.row(now, source, name, value, step=step, place=place)
        show_batch(recorder, self._config.synthesis, receipt, self._committed, first, batch.round in self._curved)

    def student_reported(self, report: StudentReport[Any]) -> None:
        """Report that the student has advanced, or was restarted from an earlier step."""
        now, recorder, step = time.time(), self._recorder, report.snapshot.step
        self._student_restarts += self._step is not None and step <= self._step
        self._step = step
        record_student(recorder, report, self._schedule.round_of_step(report.first_step))
        if len(report.losses):
            self._display.update(loss=float(report.losses.mean()), agreement=float(report.agreements.mean()))
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
            self._making_since = time.monotonic()
        self._send_metrics(progress, pool)
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
            seconds=self._recorder.elapsed_s,
        )

    def _send_metrics(self, progress: Progress, pool: GeneratorPool) -> None:
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
        metrics.send()

    @property
    def _images(self) -> int:
        return self._committed * self._schedule.batch_images

    @property
    def _images_per_s(self) -> float:
        seconds = time.monotonic() - self._making_since if self._making_since else 0.0
        return (self._committed - self._found) * self._schedule.batch_images / seconds if seconds else 0.0
