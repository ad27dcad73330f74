"""The driver: starts a run's processes, hands out batches as the limiter allows, and keeps the record."""

import heapq
import time
from dataclasses import replace
from functools import partial

import ray
from ray.util.queue import Empty, Queue

from raydream.buffer.limiter import Progress
from raydream.config import DistillConfig
from raydream.errors import StallError
from raydream.records import BatchId, Snapshot
from raydream.reporting.journal import Journal
from raydream.reporting.progress import Display
from raydream.reporting.recorder import Place, Recorder
from raydream.reporting.run_folder import RunFolder
from raydream.runtime.buffer import Buffer, BufferPlan
from raydream.runtime.evaluator import Evaluator
from raydream.runtime.failures import own_error
from raydream.runtime.generator import GeneratorPlan
from raydream.runtime.messages import BatchProgress, Notice, Receipt, StudentReport
from raydream.runtime.metrics import RunMetrics
from raydream.runtime.pool import GeneratorPool
from raydream.runtime.preflight import Checked, batches_that_fit, generators_that_fit
from raydream.runtime.session import beside_the_driver, object_store_bytes
from raydream.runtime.student import StudentPlan
from raydream.runtime.training import set_damaged_checkpoints_aside, train
from raydream.shards import ShardStore
from raydream.students.snapshots import read_snapshot, write_snapshot
from raydream.synthesis.stages import learning_rate_at, updates_of
from raydream.teachers.teacher import Teacher, to_arrays

# A restarted actor is as good as new: all that counts lies in the shards, and every method may be repeated.
_BufferActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Buffer)
# A process of its own and no thread here: Ray crashes where a thread still waits when it is shut down.
_train = ray.remote(num_cpus=0, max_retries=0)(train)
_EvaluatorActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Evaluator)

POLL_S = 0.1
STEPS_PER_ROW = 10
"""distillation steps between two rows of the student's curves"""


class Driver:
    """One run on a Ray session that is up.

    Args:
        config: of the run.
        checked: what the preflight found.
        teacher: to invert.
        folder: of the run.
        recorder, display: where to tell what happens.
        journal: where to note what was mended.
    """

    def __init__(
        self,
        config: DistillConfig,
        checked: Checked,
        teacher: Teacher,
        folder: RunFolder,
        recorder: Recorder,
        display: Display,
        journal: Journal,
    ) -> None:
        self._config, self._checked, self._teacher = config, checked, teacher
        self._schedule, self._folder = checked.schedule, folder
        self._recorder, self._display, self._journal = recorder, display, journal
        self._store = ShardStore(folder.images)
        committed = set(self._store.committed())
        self._pending = [batch for batch in self._schedule.batch_ids() if batch not in committed]  # in order: a heap
        self._committed = len(committed)
        self._made_here = 0
        self._measuring: list[ray.ObjectRef] = []
        self._snapshot: Snapshot | None = None
        self._snapshot_ref: ray.ObjectRef | None = None
        self._began_rounds = 0.0
        self._trained = False
        self._student_restarts = 0

    def run(self) -> Snapshot:
        """Make all images and train the student.

        Returns:
            the trained student.

        Raises:
            RaydreamError: a generator or the student failed for good.
        """
        self._start()
        try:
            while not self._done():
                round_ended = self._collect_reports()
                self._start_batches()
                if round_ended:
                    self._recorder.flush()
                self._collect_batches()
                self._collect_measurements()
                self._check_alive()
            assert self._snapshot is not None
            return self._snapshot
        except ray.exceptions.RayError as error:
            raise own_error(error, "a process that the run cannot do without was lost") from error
        finally:
            self._recorder.flush()

    def _start(self) -> None:
        config, schedule = self._config, self._schedule
        self._display.update(stage="starting processes")
        self._metrics = RunMetrics(self._folder.run)
        self._teacher_ref = ray.put(to_arrays(self._teacher.network))
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
        here = {"scheduling_strategy": beside_the_driver()}
        self._buffer = _BufferActor.options(name="buffer", **here).remote(buffer)
        student = config.student if config.synthesis.competes else None
        plan = GeneratorPlan(
            self._folder.run,
            config.device,
            config.teacher,
            config.synthesis,
            student,
            config.generators,
            shards=self._folder.images,
            sources=self._folder.images,
        )
        self._evaluator = _EvaluatorActor.options(name="evaluator").remote(config, self._folder.images)
        self._reports = Queue(actor_options={"num_cpus": 0, "name": "reports", **here})
        room = partial(generators_that_fit, config)
        self._pool = GeneratorPool(plan, self._teacher_ref, self._reports, self._journal.note, room)
        training = StudentPlan(
            config, schedule, [self._teacher_ref], self._buffer, self._reports, self._folder.images, most_handles
        )
        if damage := set_damaged_checkpoints_aside(self._folder.checkpoints):
            self._journal.note(f"{damage}, and the student starts anew")
        self._training = _train.options(**here).remote(training, self._folder.checkpoints)
        self._last_news = time.time()

    def _done(self) -> bool:
        learned = self._snapshot is not None and self._snapshot.step == self._schedule.total_steps
        return learned and self._trained and not (self._pending or self._pool.in_flight or self._measuring)

    def _progress(self) -> Progress:
        status: Progress = ray.get(self._buffer.status.remote(), timeout=self._config.buffer.stall_timeout_s)
        step = self._snapshot.step if self._snapshot else None
        # A buffer that was begun anew has handed out nothing, whatever the student has behind it.
        status = replace(status, drawn_steps=max(status.drawn_steps, step or 0))
        if step is not None and self._config.synthesis.competes and step < self._checked.settle_steps:
            step = None
        return replace(status, in_flight=len(self._pool.in_flight), snapshot_step=step)

    def _start_batches(self) -> None:
        progress = self._progress()
        while self._pending and self._pool.has_idle() and self._checked.limiter.may_start(self._pending[0], progress):
            batch = heapq.heappop(self._pending)
            snapshot = self._snapshot_for(batch) if self._config.synthesis.competes else None
            source = self._schedule.source_of(batch, self._config)
            if source is not None and not self._store.has(source):  # damaged, and being made again
                heapq.heappush(self._pending, batch)
                break
            self._pool.start(self._schedule.order(batch, self._config), snapshot, source)
            progress = replace(progress, in_flight=len(self._pool.in_flight))
            self._began_rounds = self._began_rounds or time.time()
        self._show(progress)

    def _snapshot_for(self, batch: BatchId) -> ray.ObjectRef | None:
        due = self._checked.limiter.due(batch)
        if batch.round == 0 or due is None or (self._snapshot is not None and self._snapshot.step == due):
            return self._snapshot_ref if batch.round else None
        return ray.put(read_snapshot(self._folder.snapshots, due))

    def _collect_batches(self) -> None:
        finished, lost = self._pool.collect(POLL_S)
        for batch in lost:
            heapq.heappush(self._pending, batch)
        for made in finished:
            inserted = self._buffer.insert.remote(made.batch, [made.images])
            ray.get(inserted, timeout=self._config.buffer.stall_timeout_s)
            self._committed, self._made_here = self._committed + 1, self._made_here + 1
            self._last_news = time.time()
            self._display.state.making.pop(str(made.batch), None)
            self._record_batch(made.batch, made.receipt)

    def _record_batch(self, batch: BatchId, receipt: Receipt) -> None:
        made, recorder, now = receipt.provenance, self._recorder, time.time()
        source, place = f"generator-{made.generator}", Place(batch.round, str(batch))
        step = self._snapshot.step if self._snapshot else 0
        position, updates = self._schedule.position(batch), updates_of(self._config.synthesis)
        recorder.span(receipt.started_at, receipt.seconds, source, "make", place)
        for term, curve in receipt.curve.items():
            for update, value in curve:
                event = position * updates + update
                recorder.point(now, source, f"loss/{term}", value, step=update, event_step=event, place=place)
        for update, _ in next(iter(receipt.curve.values()), []):
            rate, event = learning_rate_at(self._config.synthesis, update), position * updates + update
            recorder.point(now, source, "synthesis/learning_rate", rate, step=update, event_step=event, place=place)
        last = {f"distance/{layer}": value for layer, value in made.distances.items()}
        last["target_share"] = made.target_share
        if made.student_step is not None:
            last["staleness_steps"] = max(0, step - made.student_step)
            self._metrics.set("staleness_steps", last["staleness_steps"])
        for name, value in last.items():
            recorder.point(now, source, name, value, step=step, event_step=position, place=place)
        if batch.index == 0:
            recorder.grid("images", self._store.read(batch).images, batch.round)
            if self._snapshot_ref is not None:
                self._measuring.append(self._evaluator.measure_synthetic.remote(self._snapshot_ref, batch))

    def _collect_reports(self) -> bool:
        """Take in what the student told; True if it ended a round."""
        round_ended = False
        while True:
            try:
                report: StudentReport | BatchProgress | Notice = self._reports.get(block=False)
            except Empty:
                return round_ended
            if isinstance(report, Notice):
                self._journal.note(report.text)
                continue
            self._last_news = time.time()
            if isinstance(report, BatchProgress):
                self._pool.heard(report.batch)
                self._display.state.making[str(report.batch)] = report.share
                continue
            if self._snapshot is not None and report.snapshot.step <= self._snapshot.step:
                self._student_restarts += 1
                self._journal.note(f"the student was restarted and goes on from step {report.first_step}")
            if self._config.rounds.lockstep and self._config.synthesis.competes:
                write_snapshot(self._folder.snapshots, report.snapshot)
            self._snapshot = report.snapshot
            self._snapshot_ref = ray.put(report.snapshot)
            self._record_report(report)
            if self._schedule.ends_round(report.snapshot.step):
                round_ended = True
                self._measuring.append(self._evaluator.measure.remote(self._snapshot_ref))

    def _record_report(self, report: StudentReport) -> None:
        now, recorder = time.time(), self._recorder
        for start, seconds in report.busy:
            place = Place(self._schedule.round_of_step(report.first_step))
            recorder.span(start, seconds, "student", "train", place)
        for offset in range(0, len(report.losses), STEPS_PER_ROW):
            step = report.first_step + offset
            for name, values in (
                ("student/loss", report.losses),
                ("student/agreement", report.agreements),
                ("student/learning_rate", report.learning_rates),
            ):
                recorder.point(now, "student", name, values[offset], step=step)
        step = report.snapshot.step
        images = self._committed * self._schedule.batch_images
        beyond = images - self._schedule.initial_batches * self._schedule.batch_images
        # The first round's steps are taken before anything joins beyond the minimum fill, the final ones after all.
        before_final = min(step, self._schedule.round_steps) - self._schedule.steps_per_round
        ratio = {"buffer/samples_per_insert": before_final * self._schedule.draw / beyond} if beyond > 0 else {}
        for name, value in {
            "student/waited_s": report.waited_s,
            "buffer/images": images,
            "images_per_s": self._images_per_s(),
            **ratio,
        }.items():
            recorder.point(now, "buffer" if "buffer" in name else "student", name, value, step=step)

    def _collect_measurements(self) -> None:
        if not self._measuring:
            return
        ready, self._measuring = ray.wait(self._measuring, num_returns=len(self._measuring), timeout=0)
        for done in ready:
            step, accuracies = ray.get(done)
            for name, value in accuracies.items():
                self._recorder.point(time.time(), "evaluator", f"accuracy/{name}", value, step=step)
                self._metrics.set("student_accuracy", value, split=name)
            shown = {**self._display.state.accuracy, **accuracies}
            self._display.update(accuracy=shown, step=step, round=self._schedule.round_of_step(step))
            if "synthetic" not in accuracies:
                self._display.round_ended()

    def _check_alive(self) -> None:
        if not self._trained and ray.wait([self._training], timeout=0)[0]:
            try:
                ray.get(self._training)
            except ray.exceptions.RayError as error:
                raise own_error(error, "the student failed") from error
            self._trained = True
        if time.time() - self._last_news > self._config.buffer.stall_timeout_s:
            making = ", ".join(map(str, self._pool.in_flight)) or "none"
            raise StallError(
                f"no new image batch and no report of the student for {self._config.buffer.stall_timeout_s:g} s "
                f"(buffer.stall_timeout_s); batches in the making: {making}; the student's last report: "
                f"{self._snapshot.step if self._snapshot else 'none'} of {self._schedule.total_steps} steps"
            )

    def _images_per_s(self) -> float:
        seconds = time.time() - self._began_rounds if self._began_rounds else 0.0
        return self._made_here * self._schedule.batch_images / seconds if seconds else 0.0

    def _tell_metrics(self, progress: Progress) -> None:
        metrics = self._metrics
        metrics.set("images", self._committed * self._schedule.batch_images)
        metrics.set("images_per_s", self._images_per_s())
        metrics.set("buffer_batches", progress.held)
        metrics.set("batches_in_flight", len(self._pool.in_flight))
        metrics.set("generators", self._pool.at_hand)
        metrics.set("restarts", self._pool.lost, role="generator")
        metrics.set("restarts", self._student_restarts, role="student")
        metrics.set("student_step", self._snapshot.step if self._snapshot else 0)

    def _show(self, progress: Progress) -> None:
        if self._snapshot is None and progress.drawn_steps == 0:
            stage = "making the first images, starting the student"
        elif self._pending or self._pool.in_flight:
            stage = "making images and learning"
        else:
            stage = "learning from all images"
        self._tell_metrics(progress)
        if self._pool.absent:
            stage += f"; waiting for {self._pool.absent} generators to start"
        self._display.update(
            stage=stage,
            step=max(
                self._snapshot.step if self._snapshot else 0, progress.drawn_steps - self._config.buffer.block_steps
            ),
            images=self._committed * self._schedule.batch_images,
            generators=len(self._pool.in_flight),
            images_per_s=self._images_per_s(),
            seconds=self._recorder.time_s(time.time()),
        )
