"""The figures, on a run folder with made-up measurements; `make_run` serves test_report.py too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from raydream.errors import ShardError
from raydream.reporting import figures
from raydream.reporting.thinning import MOST_POINTS
from raydream.store.records import BatchId, ImageBatch, Provenance
from raydream.store.shards import ShardStore
from tests.tiny import local_run

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


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
def test_each_figure_draws_and_has_labelled_axes(draw: Any, width: float) -> None:
    figure = draw(make_metrics(), width=width)
    figure.draw_without_rendering()
    assert figure.get_size_inches()[0] == width
    for axes in figure.axes:
        assert axes.get_ylabel() or axes.get_xlabel()


@pytest.fixture(scope="module")
def long() -> pd.DataFrame:
    """Metrics of a run of 250 rounds, whose student has more rows than a curve has points."""
    metrics = make_metrics(rounds=250, generators=1, batches=3, terms=["tv", "feature"])
    assert (metrics["name"] == "student/loss").sum() > MOST_POINTS
    return metrics


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_of_a_long_run_no_more_is_drawn_than_can_be_told_apart(draw: Any, long: pd.DataFrame) -> None:
    figure = draw(long)
    for axes in figure.axes:
        assert len(axes.collections) <= 5 and len(axes.lines) <= figures.MOST_CURVES + 1
        if draw is not figures.target_share_figure and axes.get_xlabel() != "round":  # dots, which are one picture
            assert all(len(line.get_xdata()) <= MOST_POINTS for line in axes.lines)
    if draw in (figures.timeline, figures.loss_curves, figures.distance_figure):
        scale = figure.axes[-1]
        assert scale.get_ylabel() == "round" and not len(scale.yaxis.get_minorticklocs())
        assert scale.get_ylim() == (-0.5, 250.5)


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_a_figure_without_its_rows_is_none(draw: Any) -> None:
    metrics = make_metrics()
    assert draw(metrics.iloc[:0]) is None
    assert draw(metrics[metrics["name"] == "something/else"]) is None


def test_values_that_are_not_finite_do_not_stop_a_figure() -> None:
    metrics = make_metrics(terms=["tv"])
    metrics.loc[metrics["name"].str.startswith("loss/"), "value"] = np.inf
    figures.loss_curves(metrics).draw_without_rendering()  # type: ignore[union-attr]
    metrics.loc[metrics["name"].str.startswith("loss/"), "value"] = np.nan
    assert figures.loss_curves(metrics) is None


def test_timeline_has_a_lane_for_the_driver_each_generator_and_the_student() -> None:
    figure = figures.timeline(make_metrics(generators=11, batches=11))
    assert figure is not None
    lanes = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert lanes == ["driver", *(f"generator-{index}" for index in range(11)), "student"]


def test_timeline_bars_are_the_spans_in_the_color_of_their_round() -> None:
    metrics = make_metrics(rounds=2, generators=1, batches=1)
    figure = figures.timeline(metrics)
    assert figure is not None
    made = metrics[metrics["name"] == "span/make"]
    lanes = figure.axes[0].collections
    bars = next(lane for lane in lanes if lane.get_paths()[0].get_extents().y0 == pytest.approx(0.64))
    assert [path.get_extents().x0 for path in bars.get_paths()] == made["time_s"].tolist()
    assert [path.get_extents().width for path in bars.get_paths()] == made["duration_s"].tolist()
    assert len({tuple(color) for color in bars.get_facecolor()}) == 3


def test_a_step_that_was_measured_again_after_a_resume_counts_once() -> None:
    metrics = make_metrics(rounds=1)
    again = metrics[metrics["name"] == "student/loss"].assign(value=7.0, time_s=1000.0).tail(1)
    figure = figures.student_curves(pd.concat([metrics, again]))
    assert figure is not None
    values = figure.axes[0].lines[0].get_ydata()
    assert len(values) == 10
    assert values[-1] == 7.0


def test_loss_curves_have_a_panel_per_term_and_at_most_so_many_batches() -> None:
    figure = figures.loss_curves(make_metrics(rounds=49, terms=["tv", "l2"]))
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes[:2]] == ["tv", "l2"]
    assert len(figure.axes[0].lines) == figures.MOST_CURVES
    first, last = figure.axes[0].lines[0], figure.axes[0].lines[-1]
    assert first.get_color() != last.get_color()


def test_distance_figure_has_the_layers_in_their_order_and_a_line_per_round() -> None:
    metrics = make_metrics()
    figure = figures.distance_figure(metrics)
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["1", "3.bn1", "3.bn2", "4.bn1", "4.shortcut.1"]
    rows = metrics[(metrics["name"] == "distance/3.bn2") & (metrics["round"] == 2)]
    assert len(figure.axes[0].lines) == 4
    assert figure.axes[0].lines[2].get_ydata()[2] == pytest.approx(rows["value"].mean())


def test_measured_samples_per_insert_stand_beside_those_asked_for() -> None:
    figure = figures.buffer_curves(make_metrics(), samples_per_insert=50)
    assert figure is not None
    panel = next(axes for axes in figure.axes if axes.get_ylabel() == "draws per insert")
    asked, measured = panel.lines
    assert asked.get_ydata() == [50, 50]
    assert measured.get_ydata().tolist() == [51, 52, 53]  # 0 means that nothing has joined yet


def pixels(figure: Figure, folder: Path) -> np.ndarray:
    figure.savefig(folder / "grid.png", dpi=figures.DPI)
    return np.asarray(Image.open(folder / "grid.png").convert("RGB"))


def cells(picture: np.ndarray, rounds: int, classes: int, height: int, width: int) -> list[list[list[np.ndarray]]]:
    """The cells by round, example and class, where the module's constants say that they are."""
    found = []
    for shown in range(rounds):
        top = figures.MARGIN_TOP + shown * (2 * height + figures.GAP + figures.ROUND_GAP)
        rows = [top, top + height + figures.GAP]
        lefts = [figures.MARGIN_LEFT + place * (width + figures.GAP) for place in range(classes)]
        found.append([[picture[row : row + height, left : left + width] for left in lefts] for row in rows])
    return found


@pytest.mark.parametrize(
    ("shape", "height", "width"),
    [((1, 8, 8), 64, 64), ((3, 8, 8), 64, 64), ((2, 8, 8), 64, 64), ((3, 12, 20), 36, 60), ((3, 40, 40), 40, 40)],
)
def test_image_grid_magnifies_each_image_by_a_whole_number(
    tmp_path: Path, shape: tuple[int, ...], height: int, width: int
) -> None:
    batches = [make_batch(0, shape=shape), make_batch(1, shape=shape)]
    found = cells(pixels(figures.image_grid(batches), tmp_path), 2, 10, height, width)
    scale = height // shape[1]
    for batch, rows in zip(batches, found, strict=True):
        for label in range(10):
            for example in range(2):
                image = batch.images[batch.targets == label][example].transpose(1, 2, 0)
                shown = image if shape[0] == 3 else np.repeat(image[..., :1], 3, axis=2)
                expected = shown.repeat(scale, axis=0).repeat(scale, axis=1)
                np.testing.assert_array_equal(rows[example][label], expected)


def test_image_grid_shows_ten_classes_and_eight_rounds_at_most(tmp_path: Path) -> None:
    figure = figures.image_grid([make_batch(shown, classes=12) for shown in range(20)])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(label) for label in range(10)]
    rounds = [label.get_text() for label in axes.get_yticklabels()]
    assert len(rounds) == 8
    assert (rounds[0], rounds[-1]) == ("round 0", "round 19")


def test_image_grid_of_large_images_stays_small(tmp_path: Path) -> None:
    picture = pixels(figures.image_grid([make_batch(shown, shape=(3, 224, 224)) for shown in range(2)]), tmp_path)
    assert picture.shape[1] < 1500
    assert (tmp_path / "grid.png").stat().st_size < 3_000_000


def test_a_class_without_images_leaves_a_grey_cell(tmp_path: Path) -> None:
    batch = make_batch(0)
    keep = batch.targets != 4
    without = ImageBatch(batch.images[keep], batch.targets[keep], batch.teacher_logits[keep], batch.provenance)
    found = cells(pixels(figures.image_grid([without, make_batch(1)]), tmp_path), 2, 10, 64, 64)
    assert np.unique(found[0][0][4]).tolist() == [225]
    assert len(np.unique(found[1][0][4])) > 1


def test_classes_that_all_rounds_have_are_shown_first() -> None:
    many, few = make_batch(0, classes=30), make_batch(1, classes=30)
    keep = few.targets >= 15
    few = ImageBatch(few.images[keep], few.targets[keep], few.teacher_logits[keep], few.provenance)
    axes = figures.image_grid([many, few]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(label) for label in range(15, 25)]


@pytest.mark.parametrize("batches", [[], [make_batch(0), make_batch(1, shape=(1, 9, 9))]])
def test_image_grid_refuses_what_makes_no_grid(batches: list[ImageBatch]) -> None:
    with pytest.raises(ValueError, match="one image shape"):
        figures.image_grid(batches)


def test_save_image_grid_writes_a_png_without_blank_cells(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_metrics(), {}, {})
    path = figures.save_image_grid(local_run(run))
    assert path == run / "images.png"
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    width = figures.MARGIN_LEFT + 10 * 64 + 9 * figures.GAP + figures.MARGIN
    rounds = 4 * (2 * 64 + figures.GAP) + 3 * figures.ROUND_GAP
    assert picture.shape == (figures.MARGIN_TOP + rounds + figures.MARGIN, width, 3)
    for rows in cells(picture, 4, 10, 64, 64):
        for row in rows:
            assert all(len(np.unique(cell)) > 1 for cell in row)
    assert not list(run.glob(".*"))


def test_only_the_first_batch_of_a_round_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_metrics(), {}, {})
    for shown in range(4):
        (run / "images" / f"r{shown:04d}-b0001.parquet").write_bytes(b"damaged")
    figures.save_image_grid(local_run(run))
    (run / "images" / "r0002-b0000.parquet").write_bytes(b"damaged")
    with pytest.raises(ShardError, match="r0002-b0000"):
        figures.save_image_grid(local_run(run))


def test_save_image_grid_without_shards_says_so(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no image batch"):
        figures.save_image_grid(local_run(tmp_path))


def test_rounds_can_be_told_apart_from_white() -> None:
    figure = figures.timeline(make_metrics(rounds=30))
    assert figure is not None
    for bars in figure.axes[0].collections:
        assert all(min(to_rgba(color)[:3]) < 0.8 for color in bars.get_facecolor())
