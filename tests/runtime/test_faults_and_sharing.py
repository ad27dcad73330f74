"""Longer end-to-end runs: processes that die, several Train workers, two runs on one cluster."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import ray

from benchmarks.processes import descendants
from tests.jobs import TINY, assert_same_run, images_of, run, start, wait_until

pytestmark = pytest.mark.long


def test_a_run_survives_the_death_of_each_kind_of_process(tmp_path: Path, library: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir, "--rounds.count", "6"
    )
    wait_until((run_dir / "images" / "r0001-b0000.parquet").exists, process)
    for name in ("ray::Generator", "ray::Buffer", "ray::RayTrainWorker"):
        victims = [pid for pid, command in descendants(process.pid).items() if command.startswith(name)]
        assert victims, f"no process named {name} among {sorted(descendants(process.pid).values())}"
        os.kill(victims[0], signal.SIGKILL)
        time.sleep(1.0)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert len(images_of(run_dir)) == 3 + 6 * 2
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["distillation_steps"] == 6 * 100 + 60


def test_two_train_workers_make_one_student(tmp_path: Path, library: Path) -> None:
    workers = ["--student.workers", "2", "--student.cpus", "0.4", "--rounds.lockstep", "true"]
    for run_dir in (tmp_path / "one", tmp_path / "other"):
        done = run("distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir, *workers)
        assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(tmp_path / "one", tmp_path / "other")


def test_two_runs_share_a_cluster(tmp_path: Path, library: Path) -> None:
    ray.init(address="local", num_cpus=4, log_to_driver=False, include_dashboard=False)
    try:
        environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address, "RAY_AUTH_MODE": "token"}
        processes = {
            tmp_path / f"run{seed}": start(
                "distill", "--config", TINY, "--training.library", library, "--run-dir", tmp_path / f"run{seed}",
                "--seed", str(seed), env=environment,
            )
            for seed in (1, 2)
        }  # fmt: skip
        for run_dir, process in processes.items():
            out, error = process.communicate(timeout=400)
            assert process.returncode == 0, out + error
            assert len(images_of(run_dir)) == 9
        one, other = (images_of(run_dir) for run_dir in processes)
        assert any((one[batch].images != other[batch].images).any() for batch in one)
    finally:
        ray.shutdown()
