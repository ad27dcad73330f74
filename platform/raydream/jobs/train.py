"""Training a teacher as a run of its own, with a folder, figures and a report."""

import time
from dataclasses import replace

import torch
from torch import nn

from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import TeacherJobConfig
from raydream.data import Dataset, check_data
from raydream.data.splits import Split
from raydream.evaluation.accuracy import accuracy_on
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.networks import build_teacher
from raydream.reporting.progress import Pace, time_text
from raydream.reporting.report import write_report
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import TrainSummary
from raydream.teachers.checkpoints import save_network
from raydream.teachers.checks import check_shapes
from raydream.teachers.loading import library_path, load_teacher
from raydream.teachers.normalization import Normalization
from raydream.teachers.training import train_teacher


def train(command: Command[TeacherJobConfig]) -> TrainSummary:
    """Train a teacher on real data, and keep it in the library, where the other jobs find it; see `carry_out`.

    An interrupted training starts from scratch when it is resumed: it takes seconds to minutes, and gives the same
    weights.
    """
    return carry_out(JOB, command)


def _check(config: TeacherJobConfig, resumed: RunFolder | None, say: Say) -> tuple[TeacherJobConfig, Dataset]:
    check_shapes(build_teacher(config.teacher), config.teacher)
    real = check_data(config.data, config.teacher, train=True)
    if real is None:
        raise ValueError("there are no real data to train a teacher on")
    return config, real


def _make(run: JobRun[TeacherJobConfig], real: Dataset) -> TrainSummary:
    config, folder = run.config, run.folder
    normalization, pace = Normalization(config.teacher.mean, config.teacher.std), Pace(config.training.epochs)
    device = use_device(config.device, torch.get_num_threads(), torch.cuda.device_count())

    def measured(network: nn.Module, split: Split) -> float:
        return accuracy_on(device, network, normalization, split.images, split.labels)

    def on_epoch(epoch: int, loss: float, network: nn.Module) -> None:
        share = measured(network, real.validation)
        run.recorder.point(time.time(), "driver", "teacher/loss", loss, step=epoch)
        tag = "teacher/accuracy_real_validation"
        run.recorder.point(time.time(), "driver", "accuracy/validation", share, step=epoch, tag=tag)
        left = time_text(pace.left_s(epoch))
        run.say(f"epoch {epoch}/{config.training.epochs}  loss {loss:.3f}  validation {share:.1%}  left {left}")

    with run.stage("teacher"):
        network = train_teacher(config.teacher, config.training, real.train, on_epoch, device)
    save_network(network, folder.teacher)
    kept = library_path(config.teacher, config.training, config.data)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, kept)
    return TrainSummary(
        teacher_accuracy=measured(network, real.test),
        teacher_accuracy_validation=measured(network, real.validation),
        data=config.data.name,
        train_images=len(real.train.labels),
        test_images=len(real.test.labels),
        teacher_fingerprint=load_teacher(replace(config.teacher, checkpoint=str(kept))).fingerprint,
    )


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
