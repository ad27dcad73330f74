"""A teacher trained on files, as jobs/train_teacher.py does it; on digits it is a test of the job."""

import json
from pathlib import Path

import numpy as np
import pytest

from raydream.cli import parse
from raydream.config import TeacherConfig, TeacherJobConfig
from raydream.data.digits import load_digits
from raydream.errors import InputError
from raydream.evaluation.accuracy import accuracy
from raydream.jobs.train import train
from raydream.teachers.loading import load_teacher


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


def test_files_that_do_not_fit_are_refused_before_anything_is_written(files: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.train = .*: must be images \(1, 9, 8\)"):
        train(parse(TeacherJobConfig, "", options(files, tmp_path, "--teacher.input_shape", "[1, 9, 8]")))
    with pytest.raises(InputError, match="its labels go from 0 to 9"):
        train(parse(TeacherJobConfig, "", options(files, tmp_path, "--teacher.classes", "9")))
    assert not (tmp_path / "run").exists()
