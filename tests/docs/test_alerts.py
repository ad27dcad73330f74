"""The example alert rules ask for metrics that runs export."""

import re

import pytest
import yaml

from raydream.runtime.metrics import GAUGES, TAGS
from tests.calls import ROOT

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
