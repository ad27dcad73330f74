"""What summary.json says, by the schema of its job."""

import json

import pytest

from raydream.errors import DocumentError
from raydream.runs.catalogue import main_figure
from raydream.runs.summaries import SUMMARIES, DistillSummary, ReproduceSummary
from raydream.runs.summary import Summary, read, shown_figure
from tests.summaries import example


@pytest.mark.parametrize("job", SUMMARIES)
def test_what_is_written_is_read_again(job):
    summary = read(SUMMARIES[job], example(job))
    assert read(SUMMARIES[job], json.loads(json.dumps(summary.as_json()))) == summary


def test_what_was_not_measured_is_left_out():
    assert "student_accuracy" not in read(DistillSummary, example("distill")).as_json()


def test_what_a_later_version_says_as_well_is_passed_over():
    assert read(Summary, {"wall_s": 2.0, "later": 1}) == Summary(wall_s=2.0)


@pytest.mark.parametrize(("change", "words"), [({"images": "many"}, "images: "), ({"rounds": None}, "rounds: ")])
def test_a_damaged_figure_is_named(change, words):
    with pytest.raises(DocumentError, match=words):
        read(DistillSummary, example("distill", **change))


FIGURES = [
    ("distill", {"student_accuracy": 0.9512}, "student accuracy 95.1 %"),
    ("distill", {}, None),
    ("synthesize", {"target_share": 0.5}, "target share 50.0 %"),
    ("transfer", {"student_accuracy": 1.0}, "student accuracy 100.0 %"),
    ("prune", {"pruned_accuracy": 0.25}, "pruned accuracy 25.0 %"),
    ("prune", {"parameters_ratio": 0.5}, "parameters ratio 50.0 %"),
    ("quantize", {"student_accuracy": 0.75}, "student accuracy 75.0 %"),
    ("quantize", {"size_ratio": 0.25}, "size ratio 25.0 %"),
    (
        "extend",
        {"methods": {"abd": {"accuracy_all": 0.5}, "lwf_mc": {"accuracy_all": 0.75}}},
        "accuracy of all classes, lwf mc 75.0 %",
    ),
    ("extend", {"methods": {}}, None),
    ("train", {"teacher_accuracy": 0.994}, "teacher accuracy 99.4 %"),
    ("search", {"metric": "feature_distance", "best_value": 12.3456}, "best feature distance 12.35"),
    ("ablate", {"metric": "accuracy", "rows": [{"accuracy_mean": 0.5}]}, "best accuracy 50.0 %"),
    ("evaluate", {"target_share": {"teacher": 1.0, "other": 0.4}}, "least target share 40.0 %"),
    ("doctor", {"faults": 2}, "faults 2"),
    ("distill", {"student_accuracy": "?"}, None),
]


@pytest.mark.parametrize(("job", "figures", "words"), FIGURES)
def test_the_main_figure(job, figures, words):
    figure = main_figure(job, example(job, **figures))
    assert (None if figure is None else str(figure)) == words


TABLE = {"teacher": {"mean": 0.99}, "noise": {"mean": 0.1}, "adaptive": {"mean": 0.9}}


@pytest.mark.parametrize("version", ["0.1", "this"])
def test_a_table_is_known_by_its_best_row(version):
    values = example("reproduce", table=4, headline="accuracy", figures={"accuracy": TABLE})
    if version == "0.1":
        values |= values.pop("figures")
    assert read(ReproduceSummary, values).figures["accuracy"] == TABLE
    assert str(main_figure("reproduce", values)) == "table 4, accuracy, adaptive 90.0 %"


def test_figures_are_shown_as_shares_counts_or_numbers():
    shown = [shown_figure(*each) for each in (("target_share", 0.5), ("images", 12_345.0), ("loss", 1.23456))]
    assert shown == ["50.0 %", "12,345", "1.235"]
