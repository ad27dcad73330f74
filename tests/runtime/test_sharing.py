"""Longer end-to-end runs: several Train workers, two runs on one cluster."""

import os
from pathlib import Path

import pytest
import ray

from tests.calls import TINY, assert_same_run, images_of, run, start


@pytest.mark.long
def test_two_train_workers_make_one_student(tmp_path: Path, library: Path) -> None:
    workers = ["--student.workers", "2", "--student.cpus", "0.4", "--rounds.lockstep", "true"]
    for run_dir in (tmp_path / "one", tmp_path / "other"):
        done = run("distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir, *workers)
        assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(tmp_path / "one", tmp_path / "other")


@pytest.mark.cluster
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
