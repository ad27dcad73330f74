"""A teacher at the size that the README shows; the demo itself: tests/test_installation.py."""

import json
from pathlib import Path

import pytest

from tests.calls import call


def test_a_teacher_is_trained_and_kept(tmp_path: Path) -> None:
    options = ["--config", "configs/digits_teacher.yaml", "--training.epochs", "5", "--training.library", tmp_path]
    done = call("train_teacher", *options, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["teacher_accuracy"] > 0.5
    assert (tmp_path / "run" / "teacher.safetensors").exists() and (tmp_path / "run" / "report.html").exists()
    assert len(list(tmp_path.glob("digits-*.safetensors"))) == 1


@pytest.mark.long
def test_the_digits_teacher_reaches_what_the_readme_says(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = call(
        "train_teacher", "--config", "configs/digits_teacher.yaml", "--training.library", tmp_path, "--run-dir", run_dir
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run_dir / "summary.json").read_text())["teacher_accuracy"] >= 0.985
