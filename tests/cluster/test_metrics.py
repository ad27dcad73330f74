"""What Ray exports of a run at work, and what the dashboard asks for."""

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raydream.runtime.metrics import GAUGES
from tests.calls import ROOT
from tests.cluster.conftest import Head

pytestmark = pytest.mark.cluster

DASHBOARD = ROOT / "docs" / "grafana.json"


def exported(head: Head) -> dict[str, list[dict[str, str]]]:
    """Labels of all samples by metric."""
    with urllib.request.urlopen(f"http://127.0.0.1:{head.metrics_port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {family.name: [sample.labels for sample in family.samples] for family in families}


def test_the_dashboard_asks_for_what_a_run_exports(head: Head, tmp_path: Path) -> None:
    queries = re.findall(r'"(?:expr|query)": "(.*ray_.*)"', DASHBOARD.read_text())
    asked = set(re.findall(r"ray_\w+", " ".join(queries)))
    assert asked == {f"ray_{name}" for name in GAUGES}
    run_dir, long = tmp_path / "run", ["--rounds.final_steps", "30000"]
    begun = head.submit("jobs/distill.py", "--config", "tests/tiny.yaml", *long, "--run-dir", run_dir, wait=False)
    (job,) = set(re.findall(r"raysubmit_\w+", begun.stdout))
    deadline = time.monotonic() + 150
    while not asked <= (found := exported(head)).keys():
        assert time.monotonic() < deadline, asked - found.keys()
        time.sleep(1)
    time.sleep(30)  # agents forget what was not told for 20 s, and no batch was made in that time
    assert asked <= (found := exported(head)).keys()
    assert head.ray("job", "stop", "--address", head.address, job).returncode == 0
    run = json.loads((run_dir / "run.json").read_text())["run"]
    labels = {
        name for query in queries for names in re.findall(r"by \(([\w, ]+)\)", query) for name in names.split(", ")
    }
    for name in asked:
        assert all(labels <= sample.keys() for sample in found[name]), name
        assert run in {sample["run"] for sample in found[name]}
    assert {sample["split"] for sample in found["ray_raydream_student_accuracy"]} >= {"test", "validation"}
    assert {sample["role"] for sample in found["ray_raydream_restarts"]} == {"generator", "student"}
