"""The charts of a run, on a run folder with made-up measurements; `make_run` serves test_report.py too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from raydream.reporting import figures
from raydream.reporting.charts import Chart, Line, Timeline
from raydream.reporting.thinning import MOST_BARS, MOST_POINTS
from raydream.store.records import BatchId, ImageBatch, Provenance
from raydream.store.shards import ShardStore

COLUMNS = {
    "time_s": "float64",
    "duration_s": "float64",
    "source": "string",
    "name": "string",
    "round": "Int32",
    "step": "Int64",
    "batch": "string",
    "value": "float64",
}
TERMS = ["classification", "tv", "l2", "feature", "competition"]


def make_batch(round_index: int, index: int = 0, shape: tuple[int, ...] = (1, 8, 8), classes: int = 10) -> ImageBatch:
    """Three images of each class: bright noise, so that no image is blank."""
    rng = np.random.default_rng([round_index, index])
    targets = np.arange(3 * classes, dtype=np.int64) % classes
    images = rng.integers(0, 200, (len(targets), *shape)).astype(np.uint8)
    logits = rng.normal(size=(len(targets), classes)).astype(np.float32)
    batch = str(BatchId(round_index, index))
    made = Provenance("run", batch, 0, 1, "adaptive", "abc", None, None, 0, {}, {}, {}, 0.9)
    return ImageBatch(images, targets, logits, made)


def make_metrics(rounds: int = 3, generators: int = 2, batches: int = 2, terms: list[str] = TERMS) -> pd.DataFrame:
    """Rows as a run of so many rounds records them; each generator makes one batch after the other."""
    rng = np.random.default_rng(0)
    rows: list[tuple[Any, ...]] = []
    for stage, start, seconds in (("teacher", 0.0, 2.0), ("start", 2.0, 3.0), ("rounds", 5.0, 10.0 * (rounds + 2))):
        rows.append((start, seconds, "driver", f"span/{stage}", None, None, None, None))
    for shown in range(rounds + 1):
        for index in range(batches):
            batch, start = str(BatchId(shown, index)), 5 + 10.0 * shown + 8.0 * (index // generators)
            place = (f"generator-{index % generators}",)
            rows.append((start, 7.5, *place, "span/make", shown, None, batch, None))
            for term in terms:
                for update in range(0, 100, 10):
                    value = 5 * np.exp(-update / 30) + 0.2 * shown + 0.05 * rng.random()
                    rows.append((start + 7, None, *place, f"loss/{term}", shown, update, batch, value))
            for layer in ("1", "3.bn1", "3.bn2", "4.bn1", "4.shortcut.1"):
                value = rng.uniform(0.1, 0.3)
                rows.append((start + 7, None, *place, f"distance/{layer}", shown, 50 * shown, batch, value))
            rows.append((start + 7, None, *place, "target_share", shown, 50 * shown, batch, 0.9 + 0.02 * shown))
            if shown:
                rows.append((start + 7, None, *place, "staleness_steps", shown, 50 * shown, batch, 10.0 + index))
        rows.append((15 + 10.0 * shown, 9.0, "student", "span/train", shown, None, None, None))
        for step in range(50 * shown, 50 * shown + 50, 10):
            at = 15 + 10.0 * shown + (step % 50) / 6
            rows.append((at, None, "student", "student/loss", None, step, None, 3 * np.exp(-step / 100)))
            rows.append((at, None, "student", "student/agreement", None, step, None, 1 - 0.8 * np.exp(-step / 60)))
            rows.append((at, None, "student", "student/learning_rate", None, step, None, 0.1))
        step, at = 50 * shown + 50, 24.0 + 10 * shown
        for name, value in (("validation", 0.96), ("test", 0.95), ("synthetic", 0.8)):
            accuracy = value * (1 - np.exp(-step / 40))
            rows.append((at, None, "evaluator", f"accuracy/{name}", None, step, None, accuracy))
        ratio = 0.0 if not shown else 50 + shown
        for name, value in (("buffer/images", 60.0 * (shown + 1)), ("buffer/samples_per_insert", ratio)):
            rows.append((at, None, "buffer", name, None, step, None, value))
        for name, value in (("student/waited_s", 0.5), ("images_per_s", 8.0)):
            rows.append((at, None, "student", name, None, step, None, value))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def make_run(run: Path, metrics: pd.DataFrame, summary: dict[str, Any], config: dict[str, Any]) -> Path:
    """A run folder with two batches of each round."""
    run.mkdir(parents=True)
    metrics.to_parquet(run / "metrics.parquet", index=False)
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for shown in range(4):
        for index in range(2):
            ShardStore(run / "images").write(make_batch(shown, index))
    return run


ALL = [
    figures.timeline,
    figures.accuracy_curves,
    figures.student_curves,
    figures.buffer_curves,
    figures.target_share_figure,
    figures.loss_curves,
    figures.distance_figure,
]


def lines_of(chart: Chart | None, title: str) -> dict[str, Line]:
    assert chart is not None
    panel = next(panel for panel in chart.panels if panel.title == title)
    return {line.name: line for line in panel.lines}


def ys(line: Line) -> list[float]:
    return [y for _, y in line.points]


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_each_figure_has_labeled_axes_and_points(draw: Any) -> None:
    chart = draw(make_metrics())
    assert chart.caption.endswith(".")
    for panel in () if isinstance(chart, Timeline) else chart.panels:
        assert panel.title and panel.x.label and panel.y.label
        assert panel.lines and all(line.points for line in panel.lines)


@pytest.fixture(scope="module")
def long() -> pd.DataFrame:
    """Metrics of a run of 250 rounds, whose student has more rows than a curve has points."""
    metrics = make_metrics(rounds=250, generators=1, batches=3, terms=["tv", "feature"])
    assert (metrics["name"] == "student/loss").sum() > MOST_POINTS
    return metrics


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_of_a_long_run_no_more_is_drawn_than_can_be_told_apart(draw: Any, long: pd.DataFrame) -> None:
    chart = draw(long)
    if isinstance(chart, Timeline):
        assert all(len(lane.bars) <= MOST_BARS for lane in chart.lanes)
    else:
        for panel in chart.panels:
            assert len(panel.lines) <= figures.MOST_CURVES + 1
            assert all(len(line.points) <= MOST_POINTS for line in panel.lines)
    if draw in (figures.timeline, figures.loss_curves, figures.distance_figure):
        assert chart.scale == ("round 0", "250")


def test_a_timeline_of_many_generators_has_fewer_bars_in_each_lane() -> None:
    count, lanes = 400, 30
    spans = {"time_s": [*map(float, range(count))] * lanes, "duration_s": 0.5, "name": "span/make", "round": 0}
    sources = [f"generator-{index // count}" for index in range(count * lanes)]
    chart = figures.timeline(pd.DataFrame(spans).assign(source=sources).astype({"name": "string"}))
    assert chart is not None and len(chart.lanes) == lanes
    assert sum(len(lane.bars) for lane in chart.lanes) <= figures.MOST_BARS_OF_ALL


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_a_figure_without_its_rows_is_none(draw: Any) -> None:
    metrics = make_metrics()
    assert draw(metrics.iloc[:0]) is None
    assert draw(metrics[metrics["name"] == "something/else"]) is None


def test_values_that_are_not_finite_do_not_stop_a_figure() -> None:
    metrics = make_metrics(terms=["tv"])
    metrics.loc[metrics["name"].str.startswith("loss/"), "value"] = np.inf
    chart = figures.loss_curves(metrics)
    assert chart is not None and all(drawn.path == "" for drawn in chart.panels[0].drawn)
    assert chart.data["panels"][0]["lines"][0]["y"] == [None] * 10
    metrics.loc[metrics["name"].str.startswith("loss/"), "value"] = np.nan
    assert figures.loss_curves(metrics) is None


def test_timeline_has_a_lane_for_the_driver_each_generator_and_the_student() -> None:
    chart = figures.timeline(make_metrics(generators=11, batches=11))
    assert chart is not None
    assert [lane.name for lane in chart.lanes] == ["driver", *(f"generator-{index}" for index in range(11)), "student"]
    assert [name for name, _ in chart.stages] == ["teacher", "start", "rounds"]


def test_timeline_bars_are_the_spans_in_the_color_of_their_round() -> None:
    metrics = make_metrics(rounds=2, generators=1, batches=1)
    chart = figures.timeline(metrics)
    assert chart is not None
    made, bars = metrics[metrics["name"] == "span/make"], chart.lanes[1].bars
    assert [start for start, *_ in bars] == made["time_s"].tolist()
    assert [seconds for _, seconds, *_ in bars] == made["duration_s"].tolist()
    assert [color for *_, color, _ in bars] == ["r0", "r4", "r7"]
    assert bars[1][3] == "round 1: 15.0 to 22.5 s"


def test_a_step_that_was_measured_again_after_a_resume_counts_once() -> None:
    metrics = make_metrics(rounds=1)
    again = metrics[metrics["name"] == "student/loss"].assign(value=7.0, time_s=1000.0).tail(1)
    (line,) = lines_of(figures.student_curves(pd.concat([metrics, again])), "distillation loss (eq. 1)").values()
    assert len(line.points) == 10
    assert ys(line)[-1] == 7.0


def test_loss_curves_have_a_panel_per_term_and_at_most_so_many_batches() -> None:
    chart = figures.loss_curves(make_metrics(rounds=49, terms=["tv", "l2"]))
    assert chart is not None
    assert [panel.title for panel in chart.panels] == ["tv", "l2"]
    lines = chart.panels[0].lines
    assert len(lines) == figures.MOST_CURVES
    assert (lines[0].color, lines[-1].color) == ("r0", "r7") and lines[-1].name == "r0049-b0001, round 49"
    assert chart.keys == [], "lines that a scale explains have no key"


def test_distance_figure_has_the_layers_in_their_order_and_a_line_per_round() -> None:
    metrics = make_metrics()
    chart = figures.distance_figure(metrics)
    assert chart is not None
    assert chart.panels[0].x.names == ("1", "3.bn1", "3.bn2", "4.bn1", "4.shortcut.1")
    rows = metrics[(metrics["name"] == "distance/3.bn2") & (metrics["round"] == 2)]
    assert len(chart.panels[0].lines) == 4
    assert ys(chart.panels[0].lines[2])[2] == pytest.approx(rows["value"].mean())


def test_measured_samples_per_insert_stand_beside_those_asked_for() -> None:
    chart = figures.buffer_curves(make_metrics(), samples_per_insert=50)
    lines = lines_of(chart, "draws per insert")
    assert ys(lines["asked for"]) == [50, 50]
    assert ys(lines["measured"]) == [51, 52, 53]  # 0 means that nothing has joined yet
    assert chart is not None and [name for name, _ in chart.keys] == ["measured", "asked for"]


def test_accuracies_stand_beside_the_teachers() -> None:
    lines = lines_of(figures.accuracy_curves(make_metrics(), teacher=0.99), "accuracy")
    assert ys(lines["teacher, real test images"]) == [0.99, 0.99] and len(lines) == 4
    assert len({line.color for line in lines.values()}) == 4
    synthetic = make_metrics().query("name == 'accuracy/synthetic'")
    assert len(lines_of(figures.accuracy_curves(synthetic, teacher=0.99), "accuracy")) == 1
