"""Training a teacher as a run of its own, with a folder, figures and a report."""

import time
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from torch import nn

from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import TeacherJobConfig
from raydream.data import Dataset, check_data
from raydream.data.splits import Split
from raydream.evaluation.accuracy import accuracy_on
from raydream.networks import build_teacher
from raydream.reporting.progress import Pace, result_table, time_text
from raydream.reporting.report import write_report
from raydream.runs import run_folder
from raydream.runs.recorder import Recorder
from raydream.runs.run_folder import RunFolder
from raydream.store.atomic import write_json
from raydream.teachers.checkpoints import save_network
from raydream.teachers.checks import check_shapes
from raydream.teachers.loading import library_path, load_teacher
from raydream.teachers.normalisation import Normalisation
from raydream.teachers.training import train_teacher


def train(command: Command[TeacherJobConfig]) -> dict[str, Any]:
    """Train a teacher on real data, and keep it in the library, where `jobs/distill.py` finds it.

    An interrupted training begins anew when it is resumed: it takes seconds to minutes, and gives the same weights.

    Returns:
        the summary: accuracies as shares in [0, 1], on the test and the validation split.

    Raises:
        InputError: data that cannot be had, or that the network does not fit; before anything is written.
    """
    began_at, config, console = time.time(), command.config, Console()
    check_shapes(build_teacher(config.teacher), config.teacher)
    real = check_data(config.data, config.teacher, train=True)
    if real is None:
        raise ValueError("there are no real data to train a teacher on")
    folder = command.folder()
    with run_folder.held(folder):
        summary = _train(config, real, folder, began_at, console)
    _show(summary, folder, console)
    return summary


def _train(
    config: TeacherJobConfig, real: Dataset, folder: RunFolder, began_at: float, console: Console
) -> dict[str, Any]:
    recorder = Recorder(folder.metrics, folder.tensorboard, began_at)
    normalisation, pace = Normalisation(config.teacher.mean, config.teacher.std), Pace(config.training.epochs)
    device = use_device(config.device, torch.get_num_threads(), torch.cuda.device_count())

    def measured(network: nn.Module, split: Split) -> float:
        return accuracy_on(device, network, normalisation, split.images, split.labels)

    def on_epoch(epoch: int, loss: float, network: nn.Module) -> None:
        share = measured(network, real.validation)
        recorder.point(time.time(), "driver", "teacher/loss", loss, step=epoch)
        recorder.point(time.time(), "driver", "accuracy/validation", share, step=epoch)
        console.print(
            f"epoch {epoch}/{config.training.epochs}  loss {loss:.3f}  validation {share:.1%}  "
            f"left {time_text(pace.left_s(epoch))}",
            highlight=False,
        )

    with recorder.stage("teacher"):
        network = train_teacher(config.teacher, config.training, real.train, on_epoch, device)
    save_network(network, folder.teacher)
    kept = library_path(config.teacher, config.training, config.data)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, kept)
    summary: dict[str, Any] = {
        "teacher_accuracy": measured(network, real.test),
        "teacher_accuracy_validation": measured(network, real.validation),
        "data": config.data.name,
        "train_images": len(real.train.labels),
        "test_images": len(real.test.labels),
        "teacher_fingerprint": load_teacher(replace(config.teacher, checkpoint=str(kept))).fingerprint,
        "wall_s": recorder.time_s(time.time()),
    }
    recorder.close()
    write_json(folder.summary, summary)
    write_report(folder)
    return summary


def _show(summary: dict[str, Any], folder: RunFolder, console: Console) -> None:
    on = f"on {summary['test_images']} real test images ({summary['data']})"
    rows = {
        "teacher": f"{summary['teacher_accuracy']:.1%} {on}",
        "validation": f"{summary['teacher_accuracy_validation']:.1%}",
        "seconds": f"{summary['wall_s']:.0f}",
        "checkpoint": folder.shown(folder.teacher.name),
        "report": folder.shown(folder.report.name),
    }
    console.print(result_table(rows))
