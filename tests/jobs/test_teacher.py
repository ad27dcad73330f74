"""A teacher trained on files, as jobs/train_teacher.py does it; on digits it is a test of the job."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from raydream.cli import parse
from raydream.config import TeacherConfig, TeacherJobConfig
from raydream.data.digits import load_digits
from raydream.errors import InputError
from raydream.evaluation.accuracy import accuracy
from raydream.jobs.train import train
from raydream.runs.metrics_table import read_metrics
from raydream.runtime.checkpoints import steps_saved
from raydream.store.folders import folder_at
from raydream.teachers.loading import load_teacher
from tests.calls import call, run, start, wait_until

WEIGHTS = "teacher.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, digits = tmp_path_factory.mktemp("files"), load_digits()
    for name in ("train", "test"):
        split = getattr(digits, name)
        np.savez(folder / f"{name}.npz", x=split.images[:, 0], y=split.labels)
    return folder


def options(files: Path, tmp_path: Path, *more: str) -> list[str]:
    named = ["--data.name", "files", "--data.train", f"{files}/train.npz", "--data.test", f"{files}/test.npz"]
    small = ["--teacher.arguments", "{width: 4}", "--training.epochs", "6", "--training.library", f"{tmp_path}/library"]
    return [*named, *small, "--run-dir", f"{tmp_path}/run", *more]


def test_a_teacher_is_trained_on_files_and_measured_on_their_test_split(files: Path, tmp_path: Path) -> None:
    train(parse(TeacherJobConfig, "", options(files, tmp_path)))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["train_images"], summary["test_images"], summary["data"]) == (897, 500, "files")
    weights = str(tmp_path / "run" / "teacher.safetensors")
    teacher, test = load_teacher(TeacherConfig(arguments={"width": 4}, checkpoint=weights)), load_digits().test
    assert accuracy(teacher.network, teacher.normalization, test.images, test.labels) == summary["teacher_accuracy"]
    assert summary["teacher_accuracy"] > 0.5


REFUSED = [
    # (options, the field that the sentence names, a part of what it says)
    (["--training.warm_up", "9"], "training.warm_up", "0 with one_cycle"),
    (["--training.decay", "linear"], "training.decay", "'one_cycle' or 'cosine'"),
    (["--training.optimizer", "adam"], "training.optimizer", "'adamw' or 'sgd'"),
    (["--training.precision", "fp16"], "training.precision", "'auto', 'fp32' or 'bf16'"),
    (["--training.label_smoothing", "1"], "training.label_smoothing", "less than 1"),
    (["--training.ema", "1"], "training.ema", "less than 1"),
    (["--training.clip_norm", "0"], "training.clip_norm", "greater than 0"),
    (["--training.zoom", "-0.1"], "training.zoom", "greater than or equal to 0"),
    (["--training.class_weights", "[1, 2]"], "training.class_weights", "10 numbers, one for each class"),
    (["--training.class_weights", "[1, 1, 1, 1, 1, 1, 1, 1, 1, 0]"], "training.class_weights", "numbers > 0"),
    (["--training.class_weights", "even"], "training.class_weights", "balanced"),
    (["--workers.count", "0"], "workers.count", "greater than or equal to 1"),
    (["--workers.count", "3"], "workers.count", "a divisor of training.batch_size (64)"),
    (["--workers.count", "2", "--device", "cuda"], "workers.gpus", "> 0 where device is cuda"),
    (["--workers.count", "2", "--workers.cpus", "4096"], "workers.cpus", "ask for fewer"),
    (["--workers.count", "2", "--workers.gpus", "99"], "workers.gpus", "ask for fewer"),
    (["--workers.count", "1024", "--training.batch_size", "1024", "--workers.cpus", "0.0001"], "workers.count", "448"),
]


@pytest.mark.parametrize(("more", "field", "said"), REFUSED)
def test_options_that_cannot_be_used_are_refused_in_one_sentence_before_anything_is_written(
    more: list[str], field: str, said: str, files: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        train(parse(TeacherJobConfig, "", options(files, tmp_path, *more)))
    assert refused.value.field.startswith(field) and said in str(refused.value), refused.value
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_a_run_leaves_curves_a_report_and_what_it_resumes_from(files: Path, tmp_path: Path) -> None:
    command = parse(TeacherJobConfig, "", options(files, tmp_path, "--training.epochs", "2", "--training.ema", "0.9"))
    summary = train(command)
    assert (summary.epochs, summary.workers) == (2, 1) and summary.teacher_parameters
    rows = read_metrics(tmp_path / "run" / "metrics.parquet")
    names = ("teacher/loss", "teacher/agreement", "teacher/learning_rate", "accuracy/validation")
    steps = {name: sorted({*rows[rows["name"] == name]["step"]}) for name in names}
    assert steps["teacher/loss"] == steps["teacher/learning_rate"] == [0, 10, 14, 24]  # 14 steps an epoch
    assert steps["accuracy/validation"] == [14, 28]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "learned from the training split" in page and "The student" not in page and "istillation" not in page
    assert steps_saved(folder_at(tmp_path / "run" / "checkpoints")) == 28


@pytest.mark.long
def test_a_killed_run_resumes_to_the_weights_of_one_that_was_not(files: Path, tmp_path: Path) -> None:
    def words(name: str) -> list[str]:
        return [*options(files, tmp_path / name, "--training.epochs", "12", "--training.ema", "0.9")]

    checkpoints = folder_at(tmp_path / "killed" / "run" / "checkpoints")
    process = start("train", *words("killed"))
    wait_until(lambda: steps_saved(checkpoints) >= 28, process)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "run" / "summary.json").exists()
    resumed = run("train", "--resume", tmp_path / "killed" / "run")
    assert resumed.returncode == 0, resumed.stderr
    assert run("train", *words("straight")).returncode == 0
    one, other = (safetensors.numpy.load_file(tmp_path / name / "run" / WEIGHTS) for name in ("killed", "straight"))
    assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.mark.long
def test_two_workers_train_one_teacher(own_ray: None, files: Path, tmp_path: Path) -> None:
    more = [
        "--workers.count",
        "2",
        "--workers.cpus",
        "0.5",
        "--training.label_smoothing",
        "0.1",
        "--training.flip",
        "true",
    ]
    done = call("train", *options(files, tmp_path, *more))
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["workers"] == 2 and summary["teacher_accuracy"] > 0.5
    rows = read_metrics(tmp_path / "run" / "metrics.parquet")
    validation = rows[rows["name"] == "accuracy/validation"]
    assert sorted(validation["step"]) == [14 * epoch for epoch in range(1, 7)]
    assert validation["value"].iloc[-1] == summary["teacher_accuracy_validation"]
    assert len(list((tmp_path / "library").glob("digits-*.safetensors"))) == 1


def test_files_that_do_not_fit_are_refused_before_anything_is_written(files: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.train = .*: must be images \(1, 9, 8\)"):
        train(parse(TeacherJobConfig, "", options(files, tmp_path, "--teacher.input_shape", "[1, 9, 8]")))
    with pytest.raises(InputError, match="its labels go from 0 to 9"):
        train(parse(TeacherJobConfig, "", options(files, tmp_path, "--teacher.classes", "9")))
    assert not (tmp_path / "run").exists()
