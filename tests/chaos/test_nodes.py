"""Nodes that come and go: generators join where there is room, and a node's loss ends nothing."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from benchmarks.processes import descendants
from raydream.runtime.checkpoints import steps_saved
from raydream.store.folders import folder_at
from tests.calls import TINY, images_of, start, wait_until
from tests.chaos.faults import assert_nothing_left, noted

pytestmark = pytest.mark.chaos

ROUNDS = 6


def start_run(cluster: Cluster, run_dir: Path, library: Path, generators: int, *options: str):
    return start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir,
        "--generators.count", str(generators), "--rounds.count", str(ROUNDS), "--synthesis.iterations", "200", *options,
        env={**os.environ, "RAY_ADDRESS": cluster.address},
    )  # fmt: skip


def assert_whole(run_dir: Path) -> None:
    assert len(images_of(run_dir)) == 3 + ROUNDS * 2
    assert json.loads((run_dir / "summary.json").read_text())["distillation_steps"] == ROUNDS * 100 + 60
    assert_nothing_left(run_dir, {})


def test_generators_join_with_a_node_and_the_run_outlives_its_loss(
    start_cluster: Callable[..., Cluster], tmp_path: Path, library: Path
) -> None:
    cluster, run_dir = start_cluster(num_cpus=1), tmp_path / "run"
    process = start_run(cluster, run_dir, library, generators=3)
    wait_until((run_dir / "images" / "r0000-b0000.parquet").exists, process)
    assert "there is room for 1 of 3 generators now" in noted(run_dir)
    node = cluster.add_node(num_cpus=1)
    wait_until(lambda: "there is room for 3 of 3 generators now" in noted(run_dir), process)
    wait_until(lambda: {made.provenance.generator for made in images_of(run_dir).values()} & {1, 2}, process)
    cluster.remove_node(node, allow_graceful=False)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert_whole(run_dir)


def test_the_students_node_is_lost_and_generators_make_room_for_it(
    start_cluster: Callable[..., Cluster], tmp_path: Path, library: Path
) -> None:
    cluster, run_dir = start_cluster(num_cpus=0), tmp_path / "run"
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    process = start_run(cluster, run_dir, library, generators=3)
    # The second checkpoint is saved after the driver was sent the first one's report, without which nothing restarts.
    wait_until(lambda: steps_saved(folder_at(run_dir / "checkpoints")) > 100, process)
    (its,) = [node for node in nodes if trains(node)]
    cluster.remove_node(its, allow_graceful=False)
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, out + error
    assert "there is room for 1 of 3 generators now" in noted(run_dir)
    assert "the student was restarted" in noted(run_dir)
    assert_whole(run_dir)


def test_a_student_takes_workers_in_with_a_node_and_goes_on_without_them(
    start_cluster: Callable[..., Cluster], tmp_path: Path, library: Path
) -> None:
    cluster, run_dir = start_cluster(num_cpus=0), tmp_path / "run"
    first = cluster.add_node(num_cpus=1)
    process = start_run(
        cluster, run_dir, library, 1, "--student.workers", "2", "--student.min_workers", "1", "--student.cpus", "0.6",
        "--generators.cpus", "0.4",
    )  # fmt: skip
    wait_until(lambda: steps_saved(folder_at(run_dir / "checkpoints")) > 0, process)
    assert "the student trains with 1 of 2 workers now" in noted(run_dir)
    second = cluster.add_node(num_cpus=1)
    wait_until(lambda: "the student trains with 2 of 2 workers now" in noted(run_dir), process)
    wait_until(lambda: trains(first) and trains(second), process)
    reached = steps_saved(folder_at(run_dir / "checkpoints"))
    wait_until(lambda: steps_saved(folder_at(run_dir / "checkpoints")) > reached, process)
    cluster.remove_node(second, allow_graceful=True)  # as a machine that is taken back goes
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, out + error
    assert noted(run_dir).count("the student trains with 1 of 2 workers now") == 2
    assert_whole(run_dir)


def trains(node) -> bool:
    """Whether the student's only worker, or one of several, is on a node."""
    return any("ray::SingleWorker.learn" in name or "RayTrainWorker" in name for name in workers_of(node).values())


def workers_of(node) -> dict[int, str]:
    (raylet,) = node.all_processes["raylet"]
    return descendants(raylet.process.pid)
