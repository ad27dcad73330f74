"""The jobs at the size that the README shows."""

import json
from pathlib import Path

import pytest

from tests.calls import call, run


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


@pytest.mark.long
def test_the_demo_distils_a_student_from_no_real_image(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = run(
        "distill",
        "--config",
        "configs/digits.yaml",
        "--training.library",
        tmp_path,
        "--run-dir",
        run_dir,
        timeout_s=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["teacher_accuracy"] >= 0.985 and summary["student_accuracy"] >= 0.97
    assert summary["rounds"] >= 4 and summary["generators"] >= 2 and summary["overlap_share"] > 0.2
