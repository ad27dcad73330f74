"""The job that trains a teacher on real data; the network that learns here is the only one that sees their labels."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
from torch import nn

from raydream.cli import Command
from raydream.config import TeacherJobConfig
from raydream.data import Dataset, check_data
from raydream.data.splits import Split
from raydream.errors import InputError
from raydream.evaluation.accuracy import accuracy_on
from raydream.jobs.followed import FollowedTask
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.run_log import record_student
from raydream.networks import build_teacher, parameters_of
from raydream.reporting.progress import Pace, Pulse, time_text
from raydream.reporting.report import write_report
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import TrainSummary
from raydream.runtime.checkpoints import quarantine_damaged_checkpoints, steps_saved
from raydream.runtime.evaluator import start_evaluator
from raydream.runtime.gpus import idle_gpus
from raydream.runtime.messages import StepsDone, StoredSnapshot, StudentReport, Throttled
from raydream.runtime.session import is_local, machine_nodes, ray_session, share_of_gpu_left
from raydream.runtime.teaching import TeacherPlan, check_room, training_device
from raydream.runtime.training import StudentTraining, learn
from raydream.schedule import Epochs
from raydream.store.records import Snapshot
from raydream.supervised.training import LEAST_IMAGES, check_loss, epochs_of
from raydream.teachers.checkpoints import save_network
from raydream.teachers.checks import check_shapes
from raydream.teachers.loading import library_path, load_teacher
from raydream.teachers.normalization import Normalization
from raydream.teachers.teacher import load_arrays


def train(command: Command[TeacherJobConfig]) -> TrainSummary:
    """Train a teacher on real data, and keep it in the library, where the other jobs find it; see `carry_out`.

    A training that was interrupted resumes from its last epoch, to the same weights to the bit.
    """
    return carry_out(JOB, command)


def _check(config: TeacherJobConfig, resumed: RunFolder | None, say: Say) -> tuple[TeacherJobConfig, Dataset]:
    check_shapes(build_teacher(config.teacher), config.teacher)
    workers = config.workers
    if workers.count > 1 and is_local():
        nodes = machine_nodes([])
        check_room(workers, nodes)
        if notice := idle_gpus(config.device, {"workers.gpus": workers.gpus}, nodes):
            say(notice)
    real = check_data(config.data, config.teacher, train=True)
    if real is None:
        raise ValueError("there are no real data to train a teacher on")
    if len(real.train.labels) < LEAST_IMAGES * workers.count:
        allowed = f"at most {len(real.train.labels) // LEAST_IMAGES} for {len(real.train.labels)} training images"
        raise InputError("workers.count", workers.count, allowed, f"each needs {LEAST_IMAGES} images in a step")
    return config, real


def _make(run: JobRun[TeacherJobConfig], real: Dataset) -> TrainSummary:
    config, folder = run.config, run.folder
    if damage := quarantine_damaged_checkpoints(folder.checkpoints):
        run.journal.note(f"{damage}, and the training starts from scratch")
    epochs = epochs_of(len(real.train.labels), config.training, config.workers.count)
    with run.stage("teacher"):
        snapshot = (_in_this_process if config.workers.count == 1 else _by_workers)(run, real, epochs)
    measure = _Measure(config)
    network = measure.network_of(snapshot)
    save_network(network, folder.teacher)
    kept = library_path(config.teacher, config.training, config.data)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, kept)
    return TrainSummary(
        teacher_accuracy=measure(network, real.test),
        teacher_accuracy_validation=measure(network, real.validation),
        data=config.data.name,
        train_images=len(real.train.labels),
        test_images=len(real.test.labels),
        epochs=epochs.count,
        workers=config.workers.count,
        teacher_parameters=parameters_of(network),
        teacher_fingerprint=load_teacher(replace(config.teacher, checkpoint=str(kept))).fingerprint,
    )


class _Measure:
    """Measures a network on real images, on the device of the run."""

    def __init__(self, config: TeacherJobConfig) -> None:
        self._teacher, self._device = config.teacher, training_device(config)
        self._normalization = Normalization(config.teacher.mean, config.teacher.std)

    def __call__(self, network: nn.Module, split: Split) -> float:
        return accuracy_on(self._device, network, self._normalization, split.images, split.labels)

    def network_of(self, snapshot: Snapshot) -> nn.Module:
        network = build_teacher(self._teacher)
        load_arrays(network, snapshot.state)
        return network.eval()


def _record(run: JobRun[TeacherJobConfig], epochs: Epochs, report: StudentReport[Any]) -> None:
    """Record the curves of an epoch; raises DivergenceError. A resumed training first reports without any."""
    if len(report.losses):
        record_student(run.recorder, report, report.first_step // epochs.steps, "teacher")
        check_loss(float(report.losses.mean()))


@dataclass
class _Here:
    """Takes the reports of a training in this process."""

    record: Callable[[StudentReport[Snapshot]], None]
    last: StudentReport[Snapshot] | None = None

    def put(self, item: StudentReport[Snapshot]) -> None:
        self.record(item)
        self.last = item


def _in_this_process(run: JobRun[TeacherJobConfig], real: Dataset, epochs: Epochs) -> Snapshot:
    """Train without Ray, in all of this process; returns the network."""
    config, checkpoints, measure = run.config, run.folder.checkpoints, _Measure(run.config)
    done = steps_saved(checkpoints) // epochs.steps
    pace, pulse = Pace(epochs.count - done), Pulse()

    def record(report: StudentReport[Snapshot]) -> None:
        _record(run, epochs, report)
        if not len(report.losses):
            return
        epoch, share = (
            report.snapshot.step // epochs.steps,
            measure(measure.network_of(report.snapshot), real.validation),
        )
        now, step, tag = time.time(), report.snapshot.step, "teacher/accuracy_real_validation"
        run.recorder.point(now, "driver", "accuracy/validation", share, step=step, tag=tag)
        run.recorder.flush()
        run.folder.save()
        loss, left = report.losses.mean(), time_text(pace.left_s(epoch - done))
        run.say(f"epoch {epoch}/{epochs.count}  loss {loss:.3f}  validation {share:.1%}  left {left}")
        pulse.line()

    def stepped(step: int) -> None:
        if pulse.due():
            run.say(f"[{run.recorder.elapsed_s:5.0f} s] {step} of {epochs.total_steps} training steps")

    here = _Here(record)
    learn(TeacherPlan(config, lambda: real.train, epochs, here, stepped), checkpoints)
    assert here.last is not None
    return here.last.snapshot


def _by_workers(run: JobRun[TeacherJobConfig], real: Dataset, epochs: Epochs) -> Snapshot:
    """Train with several workers of Ray Train, which get the training split alone; returns the network."""
    config, checkpoints, workers = run.config, run.folder.checkpoints, run.config.workers
    with ray_session(partial(check_room, workers), [], run.folder.run):
        gpus = share_of_gpu_left(config.device, [workers.gpus] * workers.count)
        evaluator = start_evaluator(config, partial(build_teacher, config.teacher), gpus)
        followed: FollowedTask[StudentReport[StoredSnapshot]] = FollowedTask(
            run,
            steps_saved(checkpoints),
            epochs.total_steps,
            partial(_record, run, epochs),
            lambda report: evaluator.measure.remote(report.snapshot.ref),
            lambda report: f"epoch {report.snapshot.step // epochs.steps}/{epochs.count}",
            "teacher",
            gpus=workers.gpus,
        )
        split, report_step = [ray.put(real.train)], Throttled(followed.reports, StepsDone)
        plan = TeacherPlan(config, partial(_fetched, split), epochs, followed.reports, report_step)
        training = StudentTraining(plan, checkpoints)
        followed.until_end(training.done, "the teacher")
        assert followed.last is not None
        return followed.last.snapshot.fetch()


def _fetched(split: list[ray.ObjectRef]) -> Split:
    found: Split = ray.get(split[0])
    return found


def _report(folder: RunFolder, config: TeacherJobConfig, summary: TrainSummary) -> None:
    write_report(folder, summary)


def _rows(summary: TrainSummary) -> dict[str, str]:
    return {
        "teacher": f"{summary.teacher_accuracy:.1%} on {summary.test_images} real test images ({summary.data})",
        "validation": f"{summary.teacher_accuracy_validation:.1%}",
    }


JOB = Job(
    name="train",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"checkpoint": "teacher.safetensors", "report": "report.html"},
)
