"""Runs beside each other in one page."""

import re
from pathlib import Path

import pandas as pd
import pytest

from raydream.errors import InputError
from raydream.reporting.comparison import curves, short_names, write_comparison
from raydream.reporting.figures import NARROW, WIDE
from raydream.runs.frames import metrics_frame
from raydream.store.shards import ShardStore
from tests.calls import call
from tests.reporting.test_figures import make_batch
from tests.reporting.test_report import Page
from tests.runs.test_frames import make_comparable, runs  # noqa: F401


def test_the_page_has_all_four_and_nothing_leaves_it(runs, tmp_path):  # noqa: F811
    path = write_comparison([str(each) for each in runs], tmp_path / "page.html")
    text = path.read_text()
    page = Page(text)
    assert page.headings == [
        "Final figures",
        "Settings that differ",
        "Curves over each other",
        "Loss terms over each other",
        "Pictures side by side",
    ]
    assert all(source.startswith("data:") for source in page.sources()) and not re.search(r"https?://|<script", text)
    for words in ("student_accuracy 90.0 % 95.0 %", "synthesis.coefficients.feature 10.0 1.0 1.0", "no main figure"):
        assert words in page.text
    assert "student.momentum" not in page.text, "what is the same is not named"


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


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_each_run_has_a_line_in_each_panel(runs, width):  # noqa: F811
    metrics = metrics_frame(runs)
    figure = curves(metrics, [str(each) for each in runs], width)
    titles = [axes.get_title() for axes in figure.axes]
    assert "accuracy, real test images" in titles and "distillation loss (eq. 1)" in titles
    lines = figure.axes[titles.index("accuracy, real test images")].get_lines()
    assert [len(line.get_xdata()) for line in lines] == [2, 3, 3]
    assert len({line.get_color() for line in lines}) == 3


def test_a_step_that_was_measured_twice_counts_once_and_courses_are_averaged():
    rows = [(1.0, "e", "accuracy/test", 10, 0.1), (2.0, "e", "accuracy/test", 10, 0.5)]
    rows += [(1.0, f"abd-{seed}", f"abd-{seed}/accuracy/all", 1, share) for seed, share in ((0, 0.2), (1, 0.4))]
    metrics = pd.DataFrame(rows, columns=["time_s", "source", "name", "step", "value"]).assign(run="a", batch=None)
    figure = curves(metrics.astype({"name": "string"}), ["a"])
    found = {axes.get_title(): float(axes.get_lines()[0].get_ydata()[0]) for axes in figure.axes}
    assert found == {"accuracy, real test images": 0.5, "abd: accuracy": pytest.approx(0.3)}
    assert curves(metrics.iloc[:0].astype({"name": "string"}), ["a"]) is None


NAMES = [
    (["runs/a/1", "runs/a/2"], ["1", "2"]),
    (["runs/a/1", "runs/b/1/"], ["a/1", "b/1"]),
    (["1", "runs/1"], ["1", "runs/1"]),
]


@pytest.mark.parametrize(("given", "names"), NAMES)
def test_names_are_as_short_as_they_can_be(given, names):
    assert short_names(given) == names


def test_a_run_is_not_beside_itself():
    for again in ("a", "a/", "./a", str(Path("a").resolve())):
        with pytest.raises(InputError, match=f"RUN = '{re.escape(again)}'.*each run once"):
            short_names(["a", "b", again])


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
