"""A run on a cluster in cluster.yaml's shape, of processes of this machine: nodes come for it, and go after it."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.calls import TINY, images_of, start
from tests.cluster.conftest import Head

pytestmark = pytest.mark.cluster

ROLES = ["student", "generator"]
NODES = ["--autoscaling", "true", "--student.node_resource", "student", "--generators.node_resource", "generator"]


def test_nodes_come_for_a_run_and_go_after_it(autoscaling: Head, tmp_path: Path) -> None:
    """Not a submitted job: its nodes would share one working directory here, which the first that goes deletes."""
    assert autoscaling.workers(ROLES) == Counter()
    run_dir, most = tmp_path / "run", Counter[str]()
    # Batches take a while, so that the second generator's node, which may come later, still finds work.
    slow = ["--synthesis.iterations", "100", "--synthesis.compile", "off"]
    one_each = ["--generators.cpus", "0.9", "--student.cpus", "0.9", *slow]
    joined = {**autoscaling.env, "RAY_ADDRESS": autoscaling.gcs}
    process = start("distill", "--config", TINY, *NODES, *one_each, "--run-dir", run_dir, env=joined)
    while process.poll() is None:
        most |= autoscaling.workers(ROLES)
    out, error = process.communicate()
    assert process.returncode == 0, out + error
    assert most >= Counter(student=1, generator=2)
    assert len(images_of(run_dir)) == 9
    makers = {batch.provenance.generator for batch in images_of(run_dir).values()}
    assert makers == {0, 1}, "both generators' nodes were used"
    assert json.loads((run_dir / "summary.json").read_text())["distillation_steps"] == 360
    deadline = time.monotonic() + 120
    while left := autoscaling.workers(ROLES):
        assert time.monotonic() < deadline, left
        time.sleep(1)


def test_a_run_without_room_is_refused_where_a_cluster_is_not_said_to_grow(autoscaling: Head, tmp_path: Path) -> None:
    joined = {**autoscaling.env, "RAY_ADDRESS": autoscaling.gcs}
    process = start("distill", "--config", TINY, "--run-dir", tmp_path / "run", env=joined)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.startswith("error: generators.cpus = 0.4") and "set autoscaling where a cluster can grow" in error
