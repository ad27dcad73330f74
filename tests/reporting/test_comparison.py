"""Runs beside each other in one page."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from raydream.reporting.comparison import _figure_table, curves, seed_curves, seed_groups, write_comparison
from raydream.runs.frames import metrics_frame
from raydream.runs.run_list import read_run
from raydream.store.shards import ShardStore
from tests.calls import call
from tests.reporting.test_figures import make_batch
from tests.reporting.test_report import SUMMARY, Page, check_closed
from tests.runs.test_frames import make_comparable, runs  # noqa: F401


def test_the_page_has_all_four_and_nothing_leaves_it(runs, tmp_path):  # noqa: F811
    path = write_comparison([str(each) for each in runs], tmp_path / "page.html")
    text = path.read_text()
    page = Page(text)
    assert page.headings == [
        "Final figures",
        "Settings that differ",
        "Over seeds",
        "Curves over each other",
        "Loss terms over each other",
        "Pictures side by side",
    ]
    check_closed(text, page)
    words = page.text
    for part in (
        "run student accuracy",
        "one 90.0 %",
        "two 95.0 %",
        "one 0 10.0 two 1 1.0 three 1 1.0",
        "no main figure",
    ):
        assert part in words
    assert "student.momentum" not in words, "what is the same is not named"


@pytest.mark.long
def test_runs_that_do_not_differ_say_so(runs, tmp_path):  # noqa: F811
    page = Page(write_comparison([str(each) for each in runs[1:]], tmp_path / "page.html").read_text())
    assert "none: all settings are the same" in page.text


@pytest.mark.long
def test_images_of_several_shapes_have_a_grid_each(runs, tmp_path):  # noqa: F811
    other = make_comparable(tmp_path / "color", 0, 1.0, 0.5)
    for shard in (other / "images").glob("*.parquet"):
        shard.unlink()
    ShardStore(other / "images").write(make_batch(0, shape=(3, 4, 6)))
    page = Page(write_comparison([str(runs[0]), str(other)], tmp_path / "page.html").read_text())
    assert "Images of 1 x 8 x 8" in page.text and "Images of 3 x 4 x 6" in page.text


def test_each_run_has_a_line_in_each_panel(runs):  # noqa: F811
    colors = {str(each): f"c{index}" for index, each in enumerate(runs)}
    chart = curves(metrics_frame(runs), colors)
    assert chart is not None
    panels = {panel.title: panel.lines for panel in chart.panels}
    assert "distillation loss (eq. 1)" in panels
    lines = panels["accuracy, real test images"]
    assert [len(line.points) for line in lines] == [2, 3, 3]
    assert [line.color for line in lines] == ["c0", "c1", "c2"]


def test_a_step_that_was_measured_twice_counts_once_and_courses_are_averaged():
    rows = [(1.0, "e", "accuracy/test", 10, 0.1), (2.0, "e", "accuracy/test", 10, 0.5)]
    rows += [(1.0, f"abd-{seed}", f"abd-{seed}/accuracy/all", 1, share) for seed, share in ((0, 0.2), (1, 0.4))]
    metrics = pd.DataFrame(rows, columns=["time_s", "source", "name", "step", "value"]).assign(run="a", batch=None)
    chart = curves(metrics.astype({"name": "string"}), {"a": "c0"})
    assert chart is not None
    found = {panel.title: panel.lines[0].points for panel in chart.panels}
    assert found == {"accuracy, real test images": [(10.0, 0.5)], "abd: accuracy": [(1.0, pytest.approx(0.3))]}
    assert curves(metrics.iloc[:0].astype({"name": "string"}), {"a": "c0"}) is None


def test_runs_that_differ_in_their_seed_alone_are_drawn_together():
    configs = [{"seed": seed, "student": {"momentum": momentum}} for momentum in (0.5, 0.9) for seed in range(3)]
    configs.append({"seed": 0, "student": {"momentum": 0.1}})
    groups = seed_groups([*"abcdefg"], configs)
    assert groups == {"momentum 0.5 (3 seeds)": ["a", "b", "c"], "momentum 0.9 (3 seeds)": ["d", "e", "f"]}
    assert seed_groups(["a", "b"], configs[:2]) == {"a (2 seeds)": ["a", "b"]}
    assert seed_groups(["a", "b"], [{}, {}]) == {}, "what is unknown is not the same"
    metrics = pd.DataFrame({
        "run": [*"abcdef"], "time_s": 1.0, "source": "e", "name": "accuracy/test", "step": 10, "batch": None,
        "value": [0.1, 0.2, 0.6, 0.5, 0.5, 0.5],
    }).astype({"name": "string"})  # fmt: skip
    chart = seed_curves(metrics, groups)
    assert chart is not None and [name for name, _ in chart.keys] == [*groups]
    first, second = chart.panels[0].lines
    assert first.points == [(10.0, pytest.approx(0.3))] and first.band == [(10.0, 0.1, 0.6)]
    assert second.band == [(10.0, 0.5, 0.5)]
    assert seed_curves(metrics, {}) is None


def test_the_best_run_is_marked_only_among_equal_figures(runs):  # noqa: F811
    (first, second, unfinished) = (read_run(str(run), "RUN") for run in runs)
    done = [replace(first, summary=SUMMARY | {"student_accuracy": share}) for share in (0.9, 0.95, 0.91)]
    assert _figure_table([*"abcd"], [*done, unfinished]).best == [1]
    assert _figure_table([*"ab"], [done[0], unfinished]).best == []
    teacher = {"teacher_accuracy": 0.99, "teacher_accuracy_validation": 0.9, "data": "digits", "train_images": 1}
    other = replace(second, noted_job="train", summary=teacher | {"test_images": 1})
    assert other.figure is not None and _figure_table([*"abc"], [*done[:2], other]).best == []


def test_the_job(runs, tmp_path: Path):  # noqa: F811
    out = tmp_path / "beside.html"
    done = call("report", runs[0], runs[1], "--out", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
    assert Page(out.read_text()).headings
    for given, words in (
        ([tmp_path], "run.json"),
        ([runs[0], runs[0]], "each run once"),
        ([], "RUN"),
        ([runs[0], "--unknown"], "--unknown"),
    ):
        wrong = call("report", *given, "--out", tmp_path / "none.html")
        assert wrong.returncode == 2 and words in wrong.stderr and "Traceback" not in wrong.stderr
    assert not (tmp_path / "none.html").exists()
    assert out.stat().st_size < 3_000_000
