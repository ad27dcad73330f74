"""Charts of a run, from its metrics: the course of making and learning.

Metrics are rows of `metrics_table.COLUMNS`. A function returns None where the rows that it needs are missing. Rounds
have the same colors in all charts of a run.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from raydream.data.sources import evenly_spread
from raydream.reporting.charts import Axis, Chart, Lane, Line, Panel, Point, Timeline, category, of_rounds, ordered
from raydream.reporting.thinning import MOST_BARS, joined_bars, thinned_curve

MOST_CURVES = 24
"""batches in the chart of loss terms, and rounds in that of feature distances, at most, evenly spread"""
MOST_BARS_OF_ALL = 8 * MOST_BARS
"""bars of a timeline, at most, if it has less than 80 lanes"""

_STEPS = {"student": Axis("distillation step"), "teacher": Axis("training step")}
"""of each network that learns"""


# --- time -------------------------------------------------------------------------------------------------------


def timeline(metrics: pd.DataFrame) -> Timeline | None:
    """Draw the activity over time: a lane for the driver's stages, one per generator and one for the student."""
    spans = metrics[_named(metrics, "span/") & metrics["duration_s"].notna()]
    working = {str(source) for source in spans["source"]} - {"driver", "student"}
    generators = sorted(working, key=lambda name: (len(name), name))
    lanes = [name for name in ("driver", *generators, "student") if (spans["source"] == name).any()]
    if not lanes:
        return None
    last, length_s = last_round(metrics), float((spans["time_s"] + spans["duration_s"]).max())
    names = [str(name) for name in spans[spans["source"] == "driver"]["name"].unique()]
    stages = {name: (name.removeprefix("span/"), category(index)) for index, name in enumerate(names)}
    most = max(MOST_BARS // 10, min(MOST_BARS, MOST_BARS_OF_ALL // len(lanes)))
    found = []
    for lane in lanes:
        rows = spans[spans["source"] == lane]
        rows = rows if lane == "driver" else joined_bars(rows, length_s, most)
        bars = []
        for start, seconds, shown, name in zip(
            rows["time_s"].astype(float), rows["duration_s"].astype(float), rows["round"].astype("float64"),
            rows["name"], strict=True,
        ):  # fmt: skip
            what, color = stages[name] if lane == "driver" else (_round(shown), ordered(shown, last))
            bars.append((start, seconds, color, f"{what}: {start:,.1f} to {start + seconds:,.1f} s"))
        found.append(Lane(lane, bars))
    scale = of_rounds(last) if lanes != ["driver"] else None
    return Timeline(CAPTIONS["timeline"], found, length_s, list(stages.values()), scale)


def last_round(metrics: pd.DataFrame) -> int:
    """Return the last round that has rows; 0 if none has."""
    return int(metrics["round"].max()) if metrics["round"].notna().any() else 0


def _round(shown: float) -> str:
    return "no round" if np.isnan(shown) else f"round {shown:.0f}"


# --- curves -----------------------------------------------------------------------------------------------------


def accuracy_curves(metrics: pd.DataFrame, teacher: float | None = None, who: str = "student") -> Chart | None:
    """Draw a network's accuracy over its steps, on each split and on synthetic images (the paper's Figure 4).

    Args:
        teacher: the teacher's accuracy on the test split, in [0, 1], for a line of its own.
        who: the network that learns, student or teacher.
    """
    kinds = {
        "test": (f"{who}, real test images", category(1)),
        "validation": (f"{who}, real validation images", category(0)),
        "synthetic": (f"{who}, newest synthetic images", category(2)),
    }
    found = {kind: rows for kind in kinds if len(rows := _points(metrics, f"accuracy/{kind}"))}
    if not found:
        return None
    lines = [Line(kinds[kind][0], _pairs(thinned_curve(rows)), kinds[kind][1]) for kind, rows in found.items()]
    if teacher is not None and found.keys() & {"test", "validation"}:
        steps = [step for line in lines for step, _ in line.points]
        ends = [(min(steps), teacher), (max(steps), teacher)]
        lines.insert(0, Line("teacher, real test images", ends, "soft dashed"))
    panel = Panel("accuracy", _STEPS[who], Axis("accuracy", share=True), lines)
    return Chart(CAPTIONS["accuracy" if who == "student" else "accuracy of a teacher"], [panel])


def student_curves(metrics: pd.DataFrame) -> Chart | None:
    """Draw the student's loss, its agreement with the teacher, its learning rate, and its losses in pruning."""
    panels = [
        _over_steps(metrics, "student/loss", Axis("distillation loss (eq. 1)", log=True), 0),
        _over_steps(metrics, "student/agreement", Axis("agreement with the teacher", share=True), 2),
        _over_steps(metrics, "student/learning_rate", Axis("learning rate", zero=True), 1),
        _over_steps(metrics, "pruning/filters", Axis("filters", zero=True), 3),
    ]
    return _chart("student", panels)


def training_curves(metrics: pd.DataFrame) -> Chart | None:
    """Draw the loss of a teacher in training, the share of views that it names right, and its learning rate."""
    panels = [
        _over_steps(metrics, "teacher/loss", Axis("cross-entropy", log=True), 0),
        _over_steps(metrics, "teacher/agreement", Axis("training views named right", share=True), 2),
        _over_steps(metrics, "teacher/learning_rate", Axis("learning rate", zero=True), 1),
    ]
    return _chart("teacher", panels)


def buffer_curves(metrics: pd.DataFrame, samples_per_insert: float | None = None) -> Chart | None:
    """Draw the buffer's size, draws per image, staleness of snapshots, waiting times, and the speed.

    Args:
        samples_per_insert: the configured value, for a separate line.
    """
    ratio = metrics[(metrics["name"] != "buffer/samples_per_insert") | (metrics["value"] > 0)]
    panels = [
        _over_steps(metrics, "buffer/images", Axis("images held", zero=True), 0),
        _over_steps(ratio, "buffer/samples_per_insert", Axis("draws per insert", zero=True), 1, samples_per_insert),
        _by_round(metrics, "staleness_steps", Axis("age of the snapshot (steps)", zero=True), 2),
        _over_steps(metrics, "student/waited_s", Axis("student waited (s)", zero=True), 3),
        _over_steps(metrics, "images_per_s", Axis("images made per second", zero=True), 4),
    ]
    return _chart("buffer", panels)


def target_share_figure(metrics: pd.DataFrame) -> Chart | None:
    """Draw the share of each batch's images that the teacher classifies as their target, by round."""
    return _chart("target_share", [_by_round(metrics, "target_share", Axis("images on target", share=True), 0)])


def loss_curves(metrics: pd.DataFrame) -> Chart | None:
    """Draw each loss term over updates of the pixels: a line per batch (`MOST_CURVES` at most), colored by round."""
    rows = metrics[_named(metrics, "loss/")].dropna(subset=["value", "batch", "round"])
    batches = evenly_spread(sorted(rows["batch"].unique()), MOST_CURVES)
    rows = rows[rows["batch"].isin(batches)]
    last, panels = last_round(metrics), []
    for term in rows["name"].unique():
        lines = [
            Line(f"{batch}, round {same['round'].iloc[0]:.0f}", _pairs(thinned_curve(same)),
                 ordered(float(same["round"].iloc[0]), last), key=False, marked=False)
            for batch, same in _points(rows, term).groupby("batch")
        ]  # fmt: skip
        y = Axis("term before its coefficient", log=True)
        panels.append(Panel(str(term).removeprefix("loss/"), Axis("update of the pixels"), y, lines))
    return Chart(CAPTIONS["loss"], panels, of_rounds(last)) if panels else None


def distance_figure(metrics: pd.DataFrame) -> Chart | None:
    """Draw the feature distance of each BN layer at a batch's last update: a line per round, mean over its batches.

    Of more than `MOST_CURVES` rounds an even spread is shown.
    """
    rows = metrics[_named(metrics, "distance/")].dropna(subset=["round", "value"])
    if not len(rows):
        return None
    layers, last = list(rows["name"].unique()), last_round(metrics)
    means = rows.groupby(["round", "name"])["value"].mean().unstack("name").reindex(columns=layers)
    lines = [
        Line(f"round {means.index[index]}", list(enumerate(means.iloc[index].to_numpy(dtype=float).tolist())),
             ordered(float(means.index[index]), last), key=False)
        for index in evenly_spread(range(len(means)), MOST_CURVES)
    ]  # fmt: skip
    names = tuple(str(layer).removeprefix("distance/") for layer in layers)
    x = Axis("BN layer, from the image to the output", names=names)
    panel = Panel("feature distance (eq. 4)", x, Axis("distance", log=True), lines)
    return Chart(CAPTIONS["distance"], [panel], of_rounds(last))


# --- what they share --------------------------------------------------------------------------------------------


def _over_steps(
    metrics: pd.DataFrame, name: str, axis: Axis, color: int, asked: float | None = None
) -> Panel | None:  # fmt: skip
    rows = _points(metrics, name)
    if not len(rows):
        return None
    points = _pairs(thinned_curve(rows))
    lines = [Line("measured" if asked is not None else axis.label, points, category(color))]
    if asked is not None:
        lines.append(Line("asked for", [(points[0][0], asked), (points[-1][0], asked)], "soft dashed"))
    return Panel(axis.label, _STEPS["teacher" if name.startswith("teacher/") else "student"], axis, lines)


def _by_round(metrics: pd.DataFrame, name: str, axis: Axis, color: int) -> Panel | None:
    rows = _points(metrics, name).dropna(subset=["round"]).sort_values("round", kind="stable")
    if not len(rows):
        return None
    rows = thinned_curve(rows)
    notes = ["" if pd.isna(batch) else str(batch) for batch in rows["batch"]]
    line = Line(axis.label, _pairs(rows, "round"), category(color), dots=True, notes=notes)
    return Panel(axis.label, Axis("round"), axis, [line])


def _chart(name: str, panels: Sequence[Panel | None]) -> Chart | None:
    found = [panel for panel in panels if panel]
    return Chart(CAPTIONS[name], found) if found else None


def _named(metrics: pd.DataFrame, prefix: str) -> "pd.Series[bool]":
    return metrics["name"].str.startswith(prefix).fillna(False).astype(bool)


def _pairs(rows: pd.DataFrame, x: str = "step") -> list[Point]:
    return list(zip(rows[x].astype(float).tolist(), rows["value"].astype(float).tolist(), strict=True))


def _points(metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    # A resumed run may have measured a step twice: the later row counts.
    rows = metrics[(metrics["name"] == name).fillna(False).astype(bool)].dropna(subset=["value"])
    rows = rows.sort_values("time_s", kind="stable").drop_duplicates(["batch", "step"], keep="last")
    rows = rows.astype({"step": "float64", "round": "float64"})
    return rows.sort_values("step", kind="stable")


CAPTIONS = {
    "accuracy": "The student should come close to the teacher on real images, and the newest synthetic images should "
    "stay harder for it than the real ones where generators compete with it.",
    "accuracy of a teacher": "The accuracy should level off, without falling again, as the learning rate falls.",
    "timeline": "Bars of generators above bars of the student at the same time show that making images and learning "
    "overlap; a gap in a lane is waiting.",
    "target_share": "Most images of each batch should be classified by the teacher as the target they were made for.",
    "loss": f"Each line is a batch ({MOST_CURVES} at most): terms should fall and level off, and the colors show "
    "how later rounds differ.",
    "distance": f"Each line is a round ({MOST_CURVES} at most): no layer should stand out by orders of magnitude, nor "
    "grow from round to round.",
    "student": "The loss should fall and the agreement with the teacher rise, with small set-backs where new images "
    "join.",
    "teacher": "The loss should fall, and the share named right rise; far above the validation split's accuracy, the "
    "network knows its training images by heart.",
    "buffer": "Draws per insert should stay near what was asked for until the last batch has joined, after which they "
    "rise freely, and snapshots should not grow ever older.",
}
