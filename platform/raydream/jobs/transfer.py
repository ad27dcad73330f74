"""The job that trains a student from scratch on a finished set of images, in epochs; it may make the set first."""

import contextlib
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from torch import nn

from raydream.cli import Command
from raydream.config import TransferConfig
from raydream.jobs.checks.transfer import CheckedTransfer, check_transfer
from raydream.jobs.followed import FollowedTask
from raydream.jobs.images import device_to_learn_on, images_made, with_room
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.run_log import record_student
from raydream.jobs.teacher import with_kept_teacher
from raydream.networks import build_student, parameters_of
from raydream.reporting.progress import accuracy_rows, waiting
from raydream.reporting.report import write_report
from raydream.runs.compared import with_teachers
from raydream.runs.recorder import Recorder
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import TransferSummary
from raydream.runtime.checkpoints import quarantine_damaged_checkpoints, steps_saved
from raydream.runtime.evaluator import final_accuracies, start_evaluator
from raydream.runtime.failures import own_error
from raydream.runtime.feeds import Feed, make_feed
from raydream.runtime.messages import StoredSnapshot, StudentReport
from raydream.runtime.placement import READ_CPUS, check_workers
from raydream.runtime.session import cluster_nodes, object_store_bytes, ray_session, share_of_gpu_left
from raydream.runtime.training import StudentTraining
from raydream.runtime.transfer import TransferPlan
from raydream.schedule import Epochs
from raydream.store.records import Snapshot
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher, load_arrays, to_arrays


def transfer(command: Command[TransferConfig]) -> TransferSummary:
    """Train a student from scratch, or resume; see `carry_out`. The size of Ray's store is known once Ray is up."""
    return carry_out(JOB, command)


def _check(config: TransferConfig, resumed: RunFolder | None, say: Say) -> tuple[TransferConfig, CheckedTransfer]:
    config = with_room(config, READ_CPUS if config.feed == "stream" else 0.0, say)
    return config, check_transfer(replace(config, teacher=with_kept_teacher(config.teacher, resumed)))


def _make(run: JobRun[TransferConfig], checked: CheckedTransfer) -> TransferSummary:
    config = run.config
    teacher = run.teacher(checked.teacher, device_to_learn_on(config))
    images = checked.images or images_made(run, config.making, teacher)
    with contextlib.ExitStack() as session:
        with run.stage("start", "Ray to start"):
            session.enter_context(ray_session(partial(check_workers, config, 0.0), [config.student], run.folder.run))
            shape, room = config.teacher.input_shape, object_store_bytes()
            feed = make_feed(config.feed, images, shape, checked.epochs, config.seed, room)
            check_workers(config, feed.read_cpus, cluster_nodes())
        with run.stage("epochs"):
            snapshot, examined = _train_student(run, teacher, checked.epochs, feed)
    student = build_student(config.student, config.teacher)
    load_arrays(student, snapshot.state)
    save_network(student, run.folder.student)
    return _summarize(run, checked, teacher, feed.name, student, examined)


def _train_student(
    run: JobRun[TransferConfig], teacher: Teacher, epochs: Epochs, feed: Feed
) -> tuple[Snapshot, dict[str, Any]]:
    """Train to the end; returns the student, and its comparison with the teacher. Raises RaydreamError."""
    config, checkpoints = run.config, run.folder.checkpoints
    build = partial(build_student, config.student, config.teacher)
    gpus = share_of_gpu_left(config.device, [config.student.gpus] * config.student.workers)
    evaluator = start_evaluator(config, build, gpus)
    if damage := quarantine_damaged_checkpoints(checkpoints):
        run.journal.note(f"{damage}, and the student starts from scratch")

    def record(report: StudentReport[StoredSnapshot]) -> None:
        if followed.last is not None and report.snapshot.step <= followed.last.snapshot.step:
            run.journal.note(f"the student was restarted and resumes from step {report.first_step}")
        record_student(run.recorder, report, report.first_step // epochs.steps)

    followed: FollowedTask[StudentReport[StoredSnapshot]] = FollowedTask(
        run,
        steps_saved(checkpoints),
        epochs.total_steps,
        record,
        lambda report: evaluator.measure.remote(report.snapshot.ref),
        lambda report: f"epoch {report.snapshot.step // epochs.steps}/{epochs.count}",
        gpus=config.student.gpus,
    )
    followed.metrics.set("images", epochs.images)
    arrays = ray.put(to_arrays(teacher.network))
    plan = TransferPlan(config, epochs, [arrays], feed, followed.reports)
    training = StudentTraining(plan, checkpoints)
    followed.until_end(training.done, "the student")
    assert followed.last is not None
    snapshot = followed.last.snapshot
    with waiting("the student to be compared with the teacher", run.console):
        return snapshot.fetch(), _examined(evaluator.examine.remote(snapshot.ref, arrays))


def _examined(asked: ray.ObjectRef) -> dict[str, Any]:
    """Return the evaluator's findings; raises RaydreamError."""
    try:
        found: dict[str, Any] = ray.get(asked)
        return found
    except ray.exceptions.RayError as error:
        raise own_error(error, "the evaluator failed") from error


def _summarize(
    run: JobRun[TransferConfig],
    checked: CheckedTransfer,
    teacher: Teacher,
    feed: str,
    student: nn.Module,
    examined: dict[str, Any],
) -> TransferSummary:
    config, epochs = run.config, checked.epochs
    with waiting("the teacher to be measured", run.console):
        device = device_to_learn_on(config)
        accuracies = final_accuracies(teacher, checked.data, run.recorder, epochs.total_steps, device)
    return TransferSummary(
        seed=config.seed,
        data=config.data.name,
        **accuracies,
        images=epochs.images,
        images_of=config.images or f"this run, by {config.synthesis.method}",
        share=config.share,
        feed=feed,
        epochs=epochs.count,
        distillation_steps=epochs.total_steps,
        teacher_parameters=parameters_of(teacher.network),
        student_parameters=parameters_of(student),
        student_wait_share=_wait_share(run.recorder),
        **run.hours(
            ("images", config.generators.number, config.generators), ("epochs", config.student.workers, config.student)
        ),
        **examined,
        teacher_fingerprint=teacher.fingerprint,
        compared=with_teachers(checked.compared, teacher.fingerprint),
        reused=run.reused(),
    )


def _wait_share(recorder: Recorder) -> float:
    """Return the share in [0, 1] of the student's time spent waiting for images, first epoch's start included."""
    waited = sum(recorder.latest("student/waited_s").values())
    table = recorder.table()
    busy = float(table.loc[table["name"] == "span/train", "duration_s"].sum())
    return waited / (waited + busy) if busy else 0.0


def _report(folder: RunFolder, config: TransferConfig, summary: TransferSummary) -> None:
    write_report(folder, summary)


def _rows(summary: TransferSummary) -> dict[str, str]:
    rows = accuracy_rows(summary)
    rows["images"] = f"{summary.images} of {summary.images_of}, by {summary.feed}"
    if summary.agreement is not None:
        rows["agreement"] = f"{summary.agreement:.1%} of the test images are named as the teacher names them"
        errors = {"student": summary.student_calibration_error, "teacher": summary.teacher_calibration_error}
        shown = ", ".join(f"{who} {error:.1%}" for who, error in errors.items())
        rows["calibration error"] = f"{shown}: how far confidence is from accuracy"
    rows["epochs"] = f"{summary.epochs}, {summary.distillation_steps} distillation steps"
    rows["parameters"] = f"student {summary.student_parameters:,}, teacher {summary.teacher_parameters:,}"
    for run in summary.compared:
        reached = f"{run['student_accuracy']:.1%}, " if "student_accuracy" in run else ""
        rows[f"beside {run['run']}"] = f"{reached}{run['images']} of {run['images_of']}"
    return rows


JOB = Job(
    name="transfer",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"student": "student.safetensors", "report": "report.html"},
)
