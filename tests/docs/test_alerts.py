"""The example alert rules ask for metrics that runs export, and are raised by an ill run and by no other."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from raydream.runtime.metrics import GAUGES, TAGS
from tests.calls import ROOT

PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
RULES = [rule for group in yaml.safe_load((ROOT / "docs/alerts.yaml").read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_rule_asks_for_metrics_and_tags_that_are_exported(rule: dict[str, object]) -> None:
    expression = str(rule["expr"])
    metrics = re.findall(r"\b\w*raydream\w*", expression)
    assert metrics and {*metrics} <= {f"ray_{name}" for name in GAUGES}
    tags = [name for names in re.findall(r"by \(([\w, ]+)\)", expression) for name in names.split(", ")]
    tags += re.findall(r"[{,](\w+)=", expression)
    assert tags and {*tags} <= {*TAGS}
    assert expression.count("(") == expression.count(")") and "summary" in rule["annotations"]  # type: ignore[operator]
    # A name that stands for a function is one that Prometheus has.
    assert {*re.findall(r"(\w+)\(", expression)} <= {"delta", "increase"}


def test_rules_have_names_of_their_own() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 0


@pytest.mark.cluster
@pytest.mark.skipif(PROMTOOL is None, reason="needs Prometheus' promtool: make promtool, or PROMTOOL=...")
def test_an_ill_run_raises_each_alert_and_a_healthy_or_ended_one_none(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs/alerts.yaml", tmp_path / "rules.yaml")
    shutil.copy(ROOT / "tests/docs/alerts.yaml", tmp_path)
    done = subprocess.run([str(PROMTOOL), "test", "rules", "alerts.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts", (tmp_path / "alerts.yaml").read_text(encoding="utf-8")))
    assert tried == {rule["alert"] for rule in RULES}
