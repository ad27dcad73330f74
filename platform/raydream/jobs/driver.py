"""The driver: starts a run's processes, orders batches as the limiter allows, and collects them."""

import heapq
import time
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import ray

from raydream.buffer.limiter import Progress, opponent
from raydream.config import DistillConfig
from raydream.errors import StallError
from raydream.jobs.checks.distill import Checked
from raydream.jobs.job import JobRun
from raydream.jobs.run_log import RunLog
from raydream.networks import build_student
from raydream.reporting.progress import Display
from raydream.runtime.buffer import Buffer, BufferPlan
from raydream.runtime.checkpoints import quarantine_damaged_checkpoints
from raydream.runtime.evaluator import start_evaluator
from raydream.runtime.generator import GeneratorPlan
from raydream.runtime.images import whole_batch
from raydream.runtime.messages import BatchProgress, Notice, ReportQueue, StoredSnapshot, StudentReport
from raydream.runtime.placement import batches_that_fit
from raydream.runtime.pool import GeneratorPool
from raydream.runtime.session import beside_the_driver, object_store_bytes, share_of_gpu_left
from raydream.runtime.student import StudentPlan
from raydream.runtime.training import StudentTraining
from raydream.store.records import BatchId, Snapshot
from raydream.store.shards import ShardStore
from raydream.students.snapshots import read_snapshot, write_snapshot
from raydream.teachers.teacher import Teacher, to_arrays

# A restarted actor loses nothing: all of its state lies in the shards, and every method can be repeated.
_BufferActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Buffer)

POLL_S = 0.2
"""seconds between two checks of the processes' reports; a finished batch is collected at once"""


class Driver:
    """Drives one run on a running Ray session.

    Args:
        run: the run to drive.
        checked: what `check_run` found.
        display: shows the progress.
    """

    def __init__(
        self,
        run: JobRun[DistillConfig],
        checked: Checked,
        display: Display,
    ) -> None:
        self._config, self._checked = run.config, checked
        self._schedule, self._folder = checked.schedule, run.folder
        self._recorder, self._journal = run.recorder, run.journal
        self._store = ShardStore(run.folder.images)
        committed = set(self._store.committed())
        self._pending = [batch for batch in self._schedule.batch_ids() if batch not in committed]  # in order: a heap
        self._run_log = RunLog(run, self._schedule, len(committed), display)
        self._measuring: list[ray.ObjectRef] = []
        self._snapshot: StoredSnapshot | None = None
        self._trained = False
        self._reports = ReportQueue(name="reports", scheduling_strategy=beside_the_driver())
        student, generators = self._config.student, self._config.generators
        processes = [student.gpus] * student.workers + [generators.gpus] * generators.number
        self._gpu_share_left = share_of_gpu_left(self._config.device, processes)
        self._pool = GeneratorPool(self._generator_plan(), self._reports, self._journal.note, self._config)

    def start_generators(self) -> None:
        """Start the generators, which takes seconds, before the teacher is available."""
        self._pool.fit(more=bool(self._pending))

    def run(self, teacher: Teacher) -> Snapshot:
        """Make all images and train the student to its end.

        Args:
            teacher: to invert.

        Returns:
            the trained student.

        Raises:
            RaydreamError: a generator or the student failed for good.
        """
        self._start(teacher)
        try:
            while not self._done():
                self._collect_batches()  # first, as generators can start while buffer and reports do
                round_ended = self._collect_reports()
                self._pool.replace_hung()
                self._start_batches()
                if round_ended:
                    self._save()
                self._collect_measurements()
                self._check_alive()
            assert self._snapshot is not None
            return self._snapshot.fetch()
        finally:
            self._save()

    def _save(self) -> None:
        self._recorder.flush()
        self._folder.save()

    def _start(self, teacher: Teacher) -> None:
        config, schedule = self._config, self._schedule
        self._teacher_ref = ray.put(to_arrays(teacher.network))
        most_handles = batches_that_fit(config, object_store_bytes())
        buffer = BufferPlan(
            schedule,
            self._checked.limiter,
            config.seed,
            self._folder.images,
            config.buffer.block_steps,
            most_handles,
            config.buffer.stall_timeout_s,
        )
        self._buffer = _BufferActor.options(name="buffer", scheduling_strategy=beside_the_driver()).remote(buffer)
        training = StudentPlan(
            config, schedule, [self._teacher_ref], self._buffer, self._reports, self._folder.images, most_handles
        )
        if damage := quarantine_damaged_checkpoints(self._folder.checkpoints):
            self._journal.note(f"{damage}, and the student starts from scratch")
        self._training = StudentTraining(training, self._folder.checkpoints)
        self._last_news = time.monotonic()

    def _generator_plan(self) -> GeneratorPlan:
        config = self._config
        student = config.student if config.synthesis.competes else None
        return GeneratorPlan(
            self._folder.run,
            config.device,
            config.teacher,
            config.synthesis,
            student,
            config.generators,
            shards=self._folder.images,
            sources=self._folder.images,
            reuse=config.reuse and str(Path(config.reuse).absolute()),
            batches=self._schedule.total_batches,
            lockstep=config.rounds.lockstep,
        )

    @cached_property
    def _evaluator(self) -> Any:
        """Start the evaluator when there is something to measure: generators and student start first."""
        config = self._config
        build = partial(build_student, config.student, config.teacher)
        return start_evaluator(config, build, self._gpu_share_left, self._folder.images)

    def _done(self) -> bool:
        learned = self._snapshot is not None and self._snapshot.step == self._schedule.total_steps
        return learned and self._trained and not (self._pending or self._pool.in_flight or self._measuring)

    def _progress(self) -> Progress:
        status: Progress = ray.get(self._buffer.status.remote(), timeout=self._config.buffer.stall_timeout_s)
        step = self._snapshot.step if self._snapshot else None
        # A restarted buffer has handed out nothing, however many steps the student has done.
        status = replace(status, drawn_steps=max(status.drawn_steps, step or 0))
        if step is not None and self._config.synthesis.competes and step < self._checked.settle_steps:
            step = None
        return replace(status, in_flight=len(self._pool.in_flight), snapshot_step=step)

    def _start_batches(self) -> None:
        progress = self._progress()
        while self._pending and self._pool.has_idle() and self._checked.limiter.may_start(self._pending[0], progress):
            batch = heapq.heappop(self._pending)
            order = self._schedule.order(batch, self._config)
            if order.after in self._pool.in_flight:  # else it is committed, as batches are begun in order
                heapq.heappush(self._pending, batch)
                break
            snapshot = self._snapshot_for(batch) if self._config.synthesis.competes else None
            source = self._schedule.source_of(batch, self._config)
            if source is not None and not self._store.has(source):  # damaged, and in progress again
                heapq.heappush(self._pending, batch)
                break
            self._pool.start(order, self._teacher_ref, snapshot, source)
            progress = replace(progress, in_flight=len(self._pool.in_flight))
        making = bool(self._pending or self._pool.in_flight)
        self._run_log.stands(progress, self._pool, making, self._waits(progress))

    def _waits(self, progress: Progress) -> dict[str, str]:
        """Return what processes wait for now, see `LongWaits.update`."""
        waits = {}
        if progress.missing:
            waits["student"] = progress.missing
        if self._pool.absent:
            waits["driver"] = f"{self._pool.absent} generators to start"
        elif self._pending and self._pool.has_idle():
            waits["generators"] = f"the student or other batches, before batch {self._pending[0]} may begin"
        if self._measuring and self._trained:
            waits["evaluator"] = f"{len(self._measuring)} measurements"
        return waits

    def _snapshot_for(self, batch: BatchId) -> ray.ObjectRef | None:
        newest = self._snapshot
        step = opponent(self._checked.limiter, batch, newest.step if newest else None)
        if step is None:
            return None
        if newest and step == newest.step:
            return newest.ref
        return ray.put(read_snapshot(self._folder.snapshots, step))

    def _collect_batches(self) -> None:
        finished, lost = self._pool.collect(POLL_S, more=bool(self._pending))
        for batch in lost:
            heapq.heappush(self._pending, batch)
        for made in finished:
            inserted = self._buffer.insert.remote(made.batch, [made.images])
            ray.get(inserted, timeout=self._config.buffer.stall_timeout_s)
            self._last_news = time.monotonic()
            shown = whole_batch(made.batch, made.images, self._store) if made.batch.index == 0 else None
            self._run_log.batch_made(made.batch, made.receipt, shown)
            if made.batch.index == 0 and self._snapshot is not None:
                self._measuring.append(self._evaluator.measure_synthetic.remote(self._snapshot.ref, made.batch))

    def _collect_reports(self) -> bool:
        """Take in the student's reports; True if it ended a round."""
        round_ended = False
        report: StudentReport[StoredSnapshot] | BatchProgress | Notice
        for report in self._reports.take():
            if isinstance(report, Notice):
                self._journal.note(report.text)
                continue
            self._last_news = time.monotonic()
            if isinstance(report, BatchProgress):
                self._pool.heard(report.batch)
                self._run_log.batch_progressed(report)
                continue
            if self._snapshot is not None and report.snapshot.step <= self._snapshot.step:
                self._journal.note(f"the student was restarted and resumes from step {report.first_step}")
            if self._config.rounds.lockstep and self._config.synthesis.competes:
                write_snapshot(self._folder.snapshots, report.snapshot.fetch())
            self._snapshot = report.snapshot
            self._run_log.student_reported(report)
            if self._schedule.ends_round(report.snapshot.step):
                round_ended = True
                self._measuring.append(self._evaluator.measure.remote(self._snapshot.ref))
        return round_ended

    def _collect_measurements(self) -> None:
        if not self._measuring:
            return
        ready, self._measuring = ray.wait(self._measuring, num_returns=len(self._measuring), timeout=0)
        for done in ready:
            self._last_news = time.monotonic()
            self._run_log.student_measured(*ray.get(done))

    def _check_alive(self) -> None:
        self._trained = self._training.done()
        if self._trained and self._measuring and not (self._pending or self._pool.in_flight):
            return  # measurements of what has learned to its end may take as long as they do
        if time.monotonic() - self._last_news > self._config.buffer.stall_timeout_s:
            making = ", ".join(map(str, self._pool.in_flight)) or "none"
            raise StallError(
                f"no new image batch and no report of the student for {self._config.buffer.stall_timeout_s:g} s "
                f"(buffer.stall_timeout_s); batches in progress: {making}; the student's last report: "
                f"{self._snapshot.step if self._snapshot else 'none'} of {self._schedule.total_steps} steps"
            )
