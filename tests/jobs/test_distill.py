"""End-to-end runs of the main job."""

import json
import os
import re
import signal
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.processes import descendants
from raydream.applications.rounds import run_rounds
from raydream.config import DistillConfig
from raydream.config.conversion import validate
from raydream.supervised.library import trained_teacher
from tests.calls import TINY, assert_same_images, assert_same_run, images_of, lockstep_options, start, wait_until
from tests.chaos.faults import assert_ended, assert_nothing_left
from tests.conftest import Job


def test_a_run_leaves_the_folder_that_the_contract_names(tmp_path: Path, library: Path, job: Job) -> None:
    run_dir = tmp_path / "run"
    done = job("distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("config.yaml", "summary.json", "metrics.parquet", "student.safetensors", "report.html", "images.png"):
        assert (run_dir / name).stat().st_size > 0, name
    batches = images_of(run_dir)
    assert sorted(batches) == [f"r0000-b000{i}" for i in range(3)] + [
        f"r000{r}-b000{i}" for r in (1, 2, 3) for i in range(2)
    ]
    assert all(made.provenance.student_step is None for batch, made in batches.items() if batch.startswith("r0000"))
    # 44 steps until the student's BN statistics have settled; none competes before that.
    assert all(
        (made.provenance.student_step or 0) >= 44 for batch, made in batches.items() if not batch.startswith("r0000")
    )
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["images"] == 9 * 20 and summary["rounds"] == 3 and summary["generators"] == 2
    assert 0 <= summary["student_accuracy"] <= 1 and summary["student_accuracy_best"] >= 0.1
    metrics = pd.read_parquet(run_dir / "metrics.parquet")
    assert metrics[metrics["name"] == "span/make"]["batch"].nunique() == 9
    assert {"accuracy/test", "accuracy/validation", "accuracy/synthetic", "loss/competition", "student/loss"} <= set(
        metrics["name"]
    )
    (folder,) = (run_dir / "tensorboard").iterdir()
    assert folder.name == json.loads((run_dir / "run.json").read_text())["run"]
    events = EventAccumulator(str(folder))
    events.Reload()
    glance = {"student/accuracy_real_test", "student/loss", "batches/feature_distance", "batches/target_share"}
    assert glance <= set(events.Tags()["scalars"]) and "synthetic_images/classes 0-9" in events.Tags()["images"]
    curves = [tag for tag in events.Tags()["scalars"] if tag.startswith("synthesis/feature/")]
    assert sorted(curves) == [f"synthesis/feature/round-000{i}" for i in range(4)]
    assert [each.step for each in events.Scalars("batches/target_share")] == list(range(1, 10))
    # Nothing half-written, and none of Ray's chatter.
    assert not list(run_dir.rglob(".*aside"))
    assert "WARNING" not in done.stdout + done.stderr and done.stderr == ""
    assert done.stdout.count("round ") >= 3, "one plain line per round without a terminal"
    assert "tensorboard --logdir" in done.stdout


def test_a_private_rays_processes_start_before_the_teacher_is_trained(lockstep_run: Path) -> None:
    metrics = pd.read_parquet(lockstep_run / "metrics.parquet").set_index("name")["time_s"]
    assert metrics["span/start"] < metrics["span/teacher"] < metrics["span/rounds"]


@pytest.mark.long
def test_lockstep_gives_the_same_bits_with_another_number_of_generators(
    lockstep_run: Path, tmp_path: Path, library: Path, job: Job
) -> None:
    other = tmp_path / "run"
    done = job("distill", *lockstep_options(library), "--generators.count", "3", "--run-dir", other)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(lockstep_run, other)


def test_lockstep_equals_the_rounds_in_one_process(lockstep_run: Path) -> None:
    config = validate(DistillConfig, yaml.safe_load((lockstep_run / "config.yaml").read_text()))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        teacher, found = trained_teacher(config.teacher, config.training, config.data)
        reference = run_rounds(config, teacher)
    finally:
        torch.set_num_threads(threads)
    assert found
    assert_same_images(images_of(lockstep_run), {str(made.id): made for made in reference.batches})
    weights = safetensors.torch.load_file(lockstep_run / "student.safetensors")
    for name, value in reference.student.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.chaos
def test_a_run_whose_driver_is_killed_early_is_resumed(
    lockstep_run: Path, tmp_path: Path, library: Path, job: Job
) -> None:  # and late: tests/chaos/test_shards.py
    run_dir = tmp_path / "run"
    process = start("distill", *lockstep_options(library), "--run-dir", run_dir)
    wait_until((run_dir / "images" / "r0000-b0001.parquet").exists, process)
    late = re.compile("Agent|default_worker")  # Ray's two agents, and what is just starting, stay for a minute
    seen = {pid: each for pid, each in descendants(process.pid).items() if not late.search(each)}
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert_ended(seen, patience_s=15.0)
    kept = images_of(run_dir)
    done = job("distill", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept.keys() <= images_of(run_dir).keys()
    assert_same_run(lockstep_run, run_dir)


@pytest.mark.chaos
def test_a_run_that_is_ended_says_how_to_go_on(tmp_path: Path, library: Path, job: Job) -> None:
    """By SIGTERM to all of its processes, as by systemd, Slurm and `timeout`; Ctrl-C: tests/jobs/test_search.py."""
    run_dir = tmp_path / "run"
    process = start("distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir)
    wait_until((run_dir / "images" / "r0001-b0000.parquet").exists, process)
    seen = descendants(process.pid)
    os.killpg(process.pid, signal.SIGTERM)
    out, error = process.communicate(timeout=300)
    kept = images_of(run_dir)
    assert process.returncode == 143, out + error
    assert f"--resume {run_dir}" in error.splitlines()[-1] and "Traceback" not in out + error, out + error
    assert_nothing_left(run_dir, seen, patience_s=10.0)
    done = job("distill", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    whole = images_of(run_dir)
    assert len(whole) == 9
    assert_same_images(kept, {batch: whole[batch] for batch in kept})
    again = job("distill", "--resume", run_dir)
    assert again.returncode == 0 and "is done" in again.stdout
