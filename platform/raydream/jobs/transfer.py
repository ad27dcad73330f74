"""The job that trains a student from scratch on a finished set of images, in epochs; it may make the set first."""

import contextlib
import time
from dataclasses import replace
from functools import partial
from typing import Any

import ray
import torch
from ray.util.queue import Queue
from rich.console import Console
from torch import nn

from raydream.applications.reuse import note_reused
from raydream.cli import Command
from raydream.config import TransferConfig
from raydream.config.conversion import as_dict
from raydream.errors import StallError
from raydream.jobs.checks.transfer import CheckedTransfer, check_transfer
from raydream.jobs.run_log import record_student
from raydream.jobs.synthesize import images_made
from raydream.jobs.teacher import keep_teacher, with_kept_teacher
from raydream.networks import build_student, parameters_of
from raydream.reporting.cost import cost_rows, hours
from raydream.reporting.progress import Counter, accuracy_rows, printer, result_table
from raydream.reporting.report import write_report
from raydream.runs import run_folder
from raydream.runs.compared import with_teachers
from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder
from raydream.runs.recording import recording
from raydream.runs.run_folder import RunFolder
from raydream.runtime.checkpoints import set_damaged_checkpoints_aside, steps_saved
from raydream.runtime.evaluator import Evaluator, final_accuracies
from raydream.runtime.failures import own_error
from raydream.runtime.feeds import READ_CPUS, Feed, make_feed
from raydream.runtime.gpus import on_machine
from raydream.runtime.messages import Notice, StepsDone, StudentReport, drain
from raydream.runtime.metrics import RunMetrics
from raydream.runtime.placement import check_device, check_machine, check_workers
from raydream.runtime.session import (
    beside_the_driver,
    cluster_nodes,
    device_of_driver,
    is_local,
    machine_nodes,
    machine_text,
    object_store_bytes,
    ray_session,
    share_of_gpu_left,
)
from raydream.runtime.training import StudentTraining
from raydream.runtime.transfer import TransferPlan
from raydream.schedule import Epochs
from raydream.store.atomic import write_json
from raydream.store.records import Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher, load_arrays, to_arrays

_EvaluatorActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Evaluator)

POLL_S = 0.2


def transfer(command: Command[TransferConfig]) -> dict[str, Any]:
    """Train a student, or go on with it; returns the summary, which is also in the run folder.

    Raises:
        InputError: before Ray starts and before anything is written; only what depends on the size of the object
            store, or of a cluster that is joined, is known later.
        RaydreamError: the run failed; it can be resumed.
    """
    began_at, config, console = time.time(), command.config, Console()
    check_machines(config)
    if is_local():
        making = None if config.images else config.making
        config = on_machine(config, making, machine_nodes([config.student, config.generators]), printer(console))
    teacher = with_kept_teacher(config.teacher, command.resumed)
    checked = check_transfer(replace(config, teacher=teacher))
    folder = command.folder()
    with run_folder.held(folder):
        printer(console)(f"run {folder.run} in {folder.shown()}")
        summary = run_folder.read_summary(folder)
        if summary is None:
            summary = _run(config, checked, folder, began_at, console)
        write_report(folder)
    _show(summary, folder, console)
    return summary


def check_machines(config: TransferConfig) -> None:
    """See that this machine has room for all processes, where a cluster is not joined; raises InputError."""
    if not config.images:
        check_device(config.making)
    if is_local():
        read_cpus = READ_CPUS if config.feed == "stream" else 0.0
        check_workers(config, read_cpus, machine_nodes([config.student]))
        if not config.images:
            check_machine(config.making, machine_nodes([config.generators]))


def _device(config: TransferConfig) -> torch.device:
    """What the driver computes on."""
    return device_of_driver(config.device, [config.student.gpus, 0.0 if config.images else config.generators.gpus])


def _run(
    config: TransferConfig, checked: CheckedTransfer, folder: RunFolder, began_at: float, console: Console
) -> dict[str, Any]:
    with recording(folder, began_at, printer(console)) as (recorder, journal):
        with recorder.stage("teacher"):
            recipe = (config.teacher, config.training, config.data)
            teacher = keep_teacher(checked.teacher, recipe, folder, printer(console), _device(config))
        images = checked.images
        if images is None:
            with recorder.stage("images"):
                images = images_made(config.making, teacher, folder, console, journal)
            recorder.flush()
        with contextlib.ExitStack() as session:
            with recorder.stage("start"):
                check = partial(check_workers, config, 0.0)
                session.enter_context(ray_session(check, [config.student], folder.run))
                shape, room = config.teacher.input_shape, object_store_bytes()
                feed = make_feed(config.feed, images, shape, checked.epochs, config.seed, room)
                check_workers(config, feed.read_cpus, cluster_nodes())
            with recorder.stage("epochs"):
                training = _Training(config, teacher, checked.epochs, feed, folder, recorder, journal)
                snapshot = training.run(console)
                examined = training.examine(snapshot)
        student = build_student(config.student, config.teacher)
        load_arrays(student, snapshot.state)
        save_network(student, folder.student)
        summary = _summarise(config, checked, teacher, feed.name, student, recorder) | examined
        summary["reused"] = note_reused(ShardStore(folder.images), folder.run, config.reuse, journal.note)
        recorder.hyper_parameters(as_dict(config), summary)
    write_json(folder.summary, summary)
    return summary


class _Training:
    """The training of a student, as the driver sees it: begun, told of, measured, and waited for.

    Args:
        feed: where the images come from.
        folder: of the run.
        recorder, journal: where to tell what happens.
    """

    def __init__(
        self,
        config: TransferConfig,
        teacher: Teacher,
        epochs: Epochs,
        feed: Feed,
        folder: RunFolder,
        recorder: Recorder,
        journal: Journal,
    ) -> None:
        self._config, self._epochs, self._recorder, self._journal = config, epochs, recorder, journal
        self._folder, self._metrics = folder, RunMetrics(folder.run)
        self._metrics.set("images", epochs.images)
        here = {"scheduling_strategy": beside_the_driver()}
        self._reports = Queue(actor_options={"num_cpus": 0, "name": "reports", **here})
        gpus = share_of_gpu_left(config.device, [config.student.gpus] * config.student.workers)
        evaluator = _EvaluatorActor.options(name="evaluator", num_gpus=gpus, **here)
        self._evaluator = evaluator.remote(config, folder.images, gpus)
        if damage := set_damaged_checkpoints_aside(folder.checkpoints):
            journal.note(f"{damage}, and the student starts anew")
        self._step = steps_saved(folder.checkpoints)
        self._teacher = ray.put(to_arrays(teacher.network))
        plan = TransferPlan(config, epochs, [self._teacher], feed, self._reports)
        self._training = StudentTraining(plan, folder.checkpoints)
        self._snapshot: Snapshot | None = None
        self._measuring: dict[ray.ObjectRef, StudentReport] = {}
        self._last_news = time.time()

    def run(self, console: Console) -> Snapshot:
        """Wait for the end, and show how far it is.

        Returns:
            the trained student.

        Raises:
            RaydreamError: it failed for good.
        """
        trained = False
        try:
            with Counter("distillation steps", self._step, self._epochs.total_steps, console) as counter:
                while not trained or self._measuring or not self._is_last(self._snapshot):
                    self._collect_reports()
                    self._collect_measurements(counter)
                    counter.update(self._step)
                    self._metrics.set("student_step", self._step)
                    self._metrics.tell()
                    trained = self._training.done()
                    self._check_news()
                    time.sleep(POLL_S)
            assert self._snapshot is not None
            return self._snapshot
        except ray.exceptions.RayError as error:
            raise own_error(error, "the student failed") from error
        finally:
            self._recorder.flush()

    def examine(self, snapshot: Snapshot) -> dict[str, Any]:
        """The trained student beside the teacher on real images; see `Evaluator.examine`. Raises RaydreamError."""
        asked = self._evaluator.examine.remote(snapshot, self._teacher)
        try:
            found: dict[str, Any] = ray.get(asked, timeout=self._config.stall_timeout_s)
            return found
        except ray.exceptions.GetTimeoutError as error:
            after = f"{self._config.stall_timeout_s:g} s (stall_timeout_s)"
            raise StallError(f"the evaluator has not examined the student in {after}") from error
        except ray.exceptions.RayError as error:
            raise own_error(error, "the evaluator failed") from error

    def _is_last(self, snapshot: Snapshot | None) -> bool:
        return snapshot is not None and snapshot.step == self._epochs.total_steps

    def _collect_reports(self) -> None:
        report: StudentReport | StepsDone | Notice
        for report in drain(self._reports):
            self._last_news = time.time()
            if isinstance(report, Notice):
                self._journal.note(report.text)
            elif isinstance(report, StepsDone):
                self._step = max(self._step, report.step)
            else:
                self._student_reported(report)

    def _student_reported(self, report: StudentReport) -> None:
        if self._snapshot is not None and report.snapshot.step <= self._snapshot.step:
            self._journal.note(f"the student was restarted and goes on from step {report.first_step}")
        self._step, self._snapshot = report.snapshot.step, report.snapshot
        record_student(self._recorder, report, report.first_step // self._epochs.steps)
        self._measuring[self._evaluator.measure.remote(report.snapshot)] = report

    def _collect_measurements(self, counter: Counter) -> None:
        if not self._measuring:
            return
        for done in ray.wait(list(self._measuring), num_returns=len(self._measuring), timeout=0)[0]:
            report = self._measuring.pop(done)
            step, accuracies = ray.get(done)
            for name, value in accuracies.items():
                self._recorder.point(time.time(), "evaluator", f"accuracy/{name}", value, step=step)
                self._metrics.set("student_accuracy", value, split=name)
            if len(report.losses):
                told = {"loss": f"{report.losses.mean():.3f}", "agreement": f"{report.agreements.mean():.1%}"}
                told |= {name: f"{value:.1%}" for name, value in accuracies.items()}
                words = "  ".join(f"{name} {value}" for name, value in told.items())
                counter.say(f"epoch {step // self._epochs.steps}/{self._epochs.count}  {words}")
            self._recorder.flush()
            self._folder.save()

    def _check_news(self) -> None:
        if time.time() - self._last_news > self._config.stall_timeout_s:
            raise StallError(
                f"no distillation step for {self._config.stall_timeout_s:g} s (stall_timeout_s); "
                f"the student's last report: {self._step} of {self._epochs.total_steps} steps"
            )


def _summarise(
    config: TransferConfig,
    checked: CheckedTransfer,
    teacher: Teacher,
    feed: str,
    student: nn.Module,
    recorder: Recorder,
) -> dict[str, Any]:
    """The final figures; accuracies are shares in [0, 1], absent where there are no real data to measure on."""
    epochs = checked.epochs
    return {
        "seed": config.seed,
        "data": config.data.name,
        **final_accuracies(teacher, checked.data, recorder, epochs.total_steps, _device(config)),
        "images": epochs.images,
        "images_of": config.images or f"this run, by {config.synthesis.method}",
        "share": config.share,
        "feed": feed,
        "epochs": epochs.count,
        "distillation_steps": epochs.total_steps,
        "teacher_parameters": parameters_of(teacher.network),
        "student_parameters": parameters_of(student),
        "student_wait_share": _wait_share(recorder),
        "wall_s": recorder.time_s(time.time()),
        "seconds_by_stage": recorder.seconds_by_stage(),
        **hours(
            (recorder.seconds_by_stage().get("images", 0.0), config.generators.number, config.generators),
            (recorder.seconds_by_stage()["epochs"], config.student.workers, config.student),
        ),
        "teacher_fingerprint": teacher.fingerprint,
        "compared": with_teachers(checked.compared, teacher.fingerprint),
        **machine_text(),
    }


def _wait_share(recorder: Recorder) -> float:
    """Share in [0, 1] of the student's time that it waited for images, its first epoch's with all that starts then."""
    waited = sum(recorder.latest("student/waited_s").values())
    table = recorder.table()
    busy = float(table.loc[table["name"] == "span/train", "duration_s"].sum())
    return waited / (waited + busy) if busy else 0.0


def _show(summary: dict[str, Any], folder: RunFolder, console: Console) -> None:
    rows = accuracy_rows(summary)
    rows["images"] = f"{summary['images']} of {summary['images_of']}, by {summary['feed']}"
    if "agreement" in summary:
        rows["agreement"] = f"{summary['agreement']:.1%} of the test images are named as the teacher names them"
        errors = {who: summary[f"{who}_calibration_error"] for who in ("student", "teacher")}
        told = ", ".join(f"{who} {error:.1%}" for who, error in errors.items())
        rows["calibration error"] = f"{told}: how far confidence is from accuracy"
    rows["epochs"] = f"{summary['epochs']}, {summary['distillation_steps']} distillation steps"
    rows["parameters"] = f"student {summary['student_parameters']:,}, teacher {summary['teacher_parameters']:,}"
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in summary["seconds_by_stage"].items())
    rows["seconds"] = f"{summary['wall_s']:.0f} in all: {stages}"
    rows |= cost_rows(summary)
    for run in summary["compared"]:
        reached = f"{run['student_accuracy']:.1%}, " if "student_accuracy" in run else ""
        rows[f"beside {run['run']}"] = f"{reached}{run['images']} of {run['images_of']}"
    rows["student"] = folder.shown(folder.student.name)
    rows["report"] = folder.shown(folder.report.name)
    console.print(result_table(rows))
