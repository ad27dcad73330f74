"""A run on a cluster in cluster.yaml's shape, of processes of this machine: nodes come for it, and go after it."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.conftest import Head
from tests.jobs import images_of

pytestmark = pytest.mark.cluster

ROLES = ["student", "generator"]
NODES = ["--autoscaling", "true", "--student.node_resource", "student", "--generators.node_resource", "generator"]


def test_nodes_come_for_a_run_and_go_after_it(autoscaling: Head, tmp_path: Path) -> None:
    assert autoscaling.workers(ROLES) == Counter()
    run_dir = tmp_path / "run"
    one_each = ["--generators.cpus", "0.9", "--student.cpus", "0.9"]
    begun = autoscaling.submit(
        "jobs/distill.py", "--config", "tests/tiny.yaml", *NODES, *one_each, "--run-dir", run_dir, wait=False
    )
    (job,) = set(re.findall(r"raysubmit_\w+", begun.stdout))
    most: Counter[str] = Counter()
    deadline = time.monotonic() + 400
    while not (run_dir / "report.html").exists():
        logs = autoscaling.ray("job", "logs", "--address", autoscaling.address, job).stdout
        assert time.monotonic() < deadline and "failed: " not in logs, logs
        most |= autoscaling.workers(ROLES)
    assert most == {"student": 1, "generator": 2}
    assert len(images_of(run_dir)) == 9
    makers = {batch.provenance.generator for batch in images_of(run_dir).values()}
    assert makers == {0, 1}, "both generators' nodes were used"
    assert json.loads((run_dir / "summary.json").read_text())["distillation_steps"] == 360
    deadline = time.monotonic() + 120
    while left := autoscaling.workers(ROLES):
        assert time.monotonic() < deadline, left
        time.sleep(1)


def test_a_run_without_nodes_of_its_kind_is_refused_where_a_cluster_does_not_grow(
    autoscaling: Head, tmp_path: Path
) -> None:
    done = autoscaling.submit("jobs/distill.py", "--config", "tests/tiny.yaml", "--run-dir", tmp_path / "run")
    assert done.returncode == 1
    assert "error: generators.cpus = 0.4" in done.stdout and "set autoscaling" in done.stdout.replace("\n", " ")
