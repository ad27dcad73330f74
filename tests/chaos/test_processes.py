"""Processes killed at moments spread over a run, which ends as if nothing had happened."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from benchmarks.processes import descendants
from raydream.runtime.checkpoints import steps_saved
from raydream.runtime.failures import MAX_FAILURES
from raydream.store.folders import folder_at
from tests.calls import TINY, assert_same_run, images_of, lockstep_options, start, wait_until
from tests.chaos.faults import assert_nothing_left, damage, kill, noted
from tests.conftest import Job

pytestmark = pytest.mark.chaos
STUDENT = "ray::SingleWorker.learn"


@pytest.mark.parametrize(
    "kills",
    [
        {"r0000-b0000": "ray::Generator", "r0001-b0001": "ray::Buffer", "r0002-b0000": "ray::Generator"},
        {"r0000-b0001": "ray::Buffer", "r0001-b0000": STUDENT, "r0002-b0001": STUDENT},
        {"r0001-b0000": "ray::Evaluator", "r0001-b0001": STUDENT, "r0003-b0000": "ray::Buffer"},
    ],
    ids=lambda kills: " ".join(dict.fromkeys(kills.values())),
)
def test_a_run_whose_processes_are_killed_equals_one_whose_are_not(
    kills: dict[str, str], lockstep_run: Path, tmp_path: Path, library: Path
) -> None:
    run_dir = tmp_path / "run"
    process, seen = start("distill", *lockstep_options(library), "--run-dir", run_dir), {}
    for moment, kind in kills.items():
        wait_until((run_dir / "images" / f"{moment}.parquet").exists, process)
        wait_until(lambda: bool(kill(process.pid, kind)), process)  # noqa: B023
        seen |= descendants(process.pid)
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, out + error
    assert_same_run(lockstep_run, run_dir)
    assert_nothing_left(run_dir, seen)
    one, other = (json.loads((path / "summary.json").read_text()) for path in (lockstep_run, run_dir))
    assert one["student_accuracy"] == other["student_accuracy"]


def test_a_student_may_be_lost_again_and_again_as_long_as_it_gets_further(tmp_path: Path, library: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir, "--rounds.count", "7"
    )
    reached = 0
    for _ in range(MAX_FAILURES + 2):
        wait_until(lambda: steps_saved(folder_at(run_dir / "checkpoints")) > reached, process)  # noqa: B023
        wait_until(lambda: bool(kill(process.pid, STUDENT)), process)
        reached = steps_saved(folder_at(run_dir / "checkpoints"))
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, out + error
    assert len(images_of(run_dir)) == 3 + 7 * 2
    assert json.loads((run_dir / "summary.json").read_text())["distillation_steps"] == 7 * 100 + 60
    assert "the student was restarted and resumes from step" in noted(run_dir)


def test_a_shard_lost_when_the_student_has_learned_nearly_all_is_made_again(
    tmp_path: Path, library: Path, job: Job
) -> None:
    """Not in lockstep: what a restarted buffer has handed out counts from where the student is."""
    run_dir = tmp_path / "run"
    process = start("distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir)
    wait_until(lambda: steps_saved(folder_at(run_dir / "checkpoints")) >= 300, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (run_dir / "summary.json").unlink(missing_ok=True)
    damage(run_dir / "images" / "r0001-b0000.parquet")
    done = job("distill", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(images_of(run_dir)) == 3 + 3 * 2


def test_a_shard_damaged_when_all_was_done_is_made_again(
    lockstep_run: Path, tmp_path: Path, library: Path, job: Job
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(lockstep_run, run_dir)
    damage(run_dir / "images" / "r0002-b0000.parquet")
    done = job("distill", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(lockstep_run, run_dir)


def test_a_damaged_checkpoint_costs_training_and_no_image(tmp_path: Path, library: Path, job: Job) -> None:
    run_dir = tmp_path / "run"
    process = start("distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir)
    wait_until(lambda: steps_saved(folder_at(run_dir / "checkpoints")) > 0, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for checkpoint in (run_dir / "checkpoints").glob("student-*.pt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = job("distill", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a checkpoint of the student is damaged" in noted(run_dir)
    assert len(images_of(run_dir)) == 3 + 3 * 2
