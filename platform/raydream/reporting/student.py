"""A trained student beside its teacher and beside the students of other runs, from a summary."""

from collections.abc import Mapping
from typing import Any

from raydream.reporting.charts import Axis, Chart, Line, Panel, Table, best_rows

COLORS = {"teacher": "c0", "student": "c1"}


def reliability_figure(summary: Mapping[str, Any]) -> Chart | None:
    """Draw accuracy by confidence of teacher and student; None where they were not measured."""
    if not summary.get("student_reliability"):
        return None
    lines = [Line("right as often as sure", [(0.0, 0.0), (1.0, 1.0)], "soft dashed")]
    for who, color in COLORS.items():
        bins = summary[f"{who}_reliability"]
        points = [(float(each["confidence"]), float(each["accuracy"])) for each in bins]
        notes = [f"{each['answers']:,.0f} answers" for each in bins]
        name = f"{who}, error {100 * summary[f'{who}_calibration_error']:.1f} %"
        lines.append(Line(name, points, color, notes=notes))
    panel = Panel("accuracy by confidence", Axis("confidence", share=True), Axis("accuracy", share=True), lines)
    return Chart(
        "Points on the diagonal are answers that are right as often as the network is sure of them; below it, the "
        "network is too sure.",
        [panel],
    )


def class_figure(summary: Mapping[str, Any]) -> Chart | None:
    """Draw the accuracy of each class, teacher and student; None where it was not measured."""
    shares = {who: summary.get(f"{who}_accuracy_by_class") for who in COLORS}
    if not all(shares.values()):
        return None
    classes = [label for label, share in enumerate(shares["student"] or []) if share is not None]
    lines = []
    for who, color in COLORS.items():
        values = shares[who] or []
        points = [(float(place), float(values[label])) for place, label in enumerate(classes)]
        lines.append(Line(who, points, color, dots=True))
    x = Axis("class", names=tuple(map(str, classes)))
    return Chart(
        "No class should be far below the teacher: one that is has too few images, or none that look like it.",
        [Panel("accuracy by class", x, Axis("accuracy", share=True), lines)],
    )


def compared_rows(summary: Mapping[str, Any]) -> Table | None:
    """Return this run and the compared ones, the most accurate marked; None without others."""
    runs = summary.get("compared") or []
    if not runs:
        return None
    headings = ["run", "images", "student", "agreement", "calibration error", "settings that differ"]
    rows = [_row({"run": "this one", **summary}), *map(_row, runs)]
    return Table(headings, rows, best_rows([run.get("student_accuracy") for run in (summary, *runs)]))


def _row(run: Mapping[str, Any]) -> list[str]:
    figures = [run.get(name) for name in ("student_accuracy", "agreement", "student_calibration_error")]
    shown = [f"{100 * figure:.1f} %" if isinstance(figure, float) else "" for figure in figures]
    differs = ", ".join(f"{name}: {value}" for name, value in run.get("differs", {}).items())
    return [str(run["run"]), f"{run['images']:,} of {run['images_of']}", *shown, differs]
