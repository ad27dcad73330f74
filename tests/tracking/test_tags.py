"""Which settings runs are compared by, and which curves the layout shows."""

import re

import pytest

from raydream.cli.settings import all_names, defaults_of
from raydream.commands import COMMANDS, imported
from raydream.config import DistillConfig
from raydream.config.conversion import as_dict
from raydream.tracking.tags import COMPARED, charts_of, compared, tag_of

KINDS = {entry.config: imported(entry.config) for entry in COMMANDS if entry.config}


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_a_job_is_compared_by_a_dozen_of_its_settings(kind):
    shown = list(compared(defaults_of(kind)))
    assert 1 <= len(shown) <= 18 and shown == sorted(shown, key=COMPARED.index)


def test_each_compared_setting_is_one_of_some_job():
    known = {name for kind in KINDS.values() for name in all_names(kind)}
    assert set(COMPARED) <= known and len(set(COMPARED)) == len(COMPARED)


def test_settings_are_shown_as_they_are_set():
    shown = compared(as_dict(DistillConfig(seed=3)))
    assert shown["seed"] == 3 and shown["synthesis.method"] == "adaptive" and shown["rounds.count"] >= 1
    assert shown["synthesis.coefficients.feature"] == 10.0 and "epochs" not in shown
    assert compared({"epochs": 7, "methods": ("lwf_mc", "abd")}) == {"epochs": 7, "methods": "lwf_mc, abd"}


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("accuracy/test", "student/accuracy_real_test"),
        ("student/loss", "student/loss"),
        ("images_per_s", "system/images_per_s"),
        ("pruning/filters", "pruning/filters"),
    ],
)
def test_a_metric_has_a_tag(name, tag):
    assert tag_of(name) == tag


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_the_layout_has_the_charts_that_a_job_fills(kind):
    settings = defaults_of(kind)
    charts = charts_of(settings)
    assert bool(charts) == ("synthesis" in settings)
    for tags in (tags for category in charts.values() for tags in category.values()):
        assert all(re.compile(tag) and re.match("student|batches|synthesis|system", tag) for tag in tags)
    assert ("accuracy on real images" in charts.get("At a glance", {})) == ({"synthesis", "student"} <= settings.keys())


@pytest.mark.parametrize(
    ("synthesis", "terms"),
    [
        ({"method": "noise"}, ["classification"]),
        ({"method": "deep_inversion", "coefficients": {"l2": 0.0}}, ["classification", "tv", "feature"]),
        ({"method": "dafl"}, ["one_hot", "activation", "information_entropy"]),
    ],
)
def test_a_term_that_has_no_weight_has_no_empty_chart(synthesis, terms):
    charts = charts_of(as_dict(DistillConfig(synthesis=synthesis)))
    assert [*charts["Synthesis, one curve per round"]] == terms
