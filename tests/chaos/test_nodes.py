"""Nodes that come and go: generators join where there is room, and a node's loss ends nothing."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from raydream.reporting.journal import read_journal
from tests.jobs import TINY, images_of, start, wait_until

pytestmark = pytest.mark.chaos


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head with room for a student and one generator."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def test_generators_join_with_a_node_and_the_run_outlives_its_loss(
    cluster: Cluster, tmp_path: Path, library: Path
) -> None:
    run_dir = tmp_path / "run"
    process = start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir,
        "--generators.count", "3", "--rounds.count", "8", "--synthesis.iterations", "200",
        env={**os.environ, "RAY_ADDRESS": cluster.address},
    )  # fmt: skip

    def noted(text: str) -> bool:
        return any(text in entry.text for entry in read_journal(run_dir / "journal.jsonl"))

    wait_until((run_dir / "images" / "r0000-b0000.parquet").exists, process)
    assert noted("there is room for 1 of 3 generators now")
    node = cluster.add_node(num_cpus=1)
    wait_until(lambda: noted("there is room for 3 of 3 generators now"), process)
    wait_until(lambda: {made.provenance.generator for made in images_of(run_dir).values()} & {1, 2}, process)
    cluster.remove_node(node, allow_graceful=False)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert len(images_of(run_dir)) == 3 + 8 * 2
    assert json.loads((run_dir / "summary.json").read_text())["distillation_steps"] == 8 * 100 + 60
