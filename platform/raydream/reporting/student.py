"""A trained student beside its teacher and beside the students of other runs, from a summary."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from raydream.reporting.figures import NARROW, WIDE

COLORS = {"teacher": "#0072B2", "student": "#D55E00"}
MOST_CLASSES = 20
"""classes that are shown one by one; of more, those where the student is furthest below the teacher"""


def reliability_figure(summary: Mapping[str, Any], width: float = WIDE) -> Figure | None:
    """Draw accuracy by confidence of teacher and student; None where they were not measured.

    Args:
        width: width of the figure, in inches.
    """
    if not summary.get("student_reliability"):
        return None
    figure = Figure(figsize=(min(width, 5.5), 5.0), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
    for who, color in COLORS.items():
        bins = summary[f"{who}_reliability"]
        answers = np.array([each["answers"] for each in bins], float)
        confidences, accuracies = ([each[name] for each in bins] for name in ("confidence", "accuracy"))
        axes.plot(confidences, accuracies, color=color, linewidth=1)
        error = f"{who}, error {100 * summary[f'{who}_calibration_error']:.1f} %"
        axes.scatter(confidences, accuracies, 12 + 120 * answers / answers.sum(), color, label=error)
    for axis, label in ((axes.xaxis, "confidence"), (axes.yaxis, "accuracy")):
        axis.set_major_formatter(PercentFormatter(1.0))
        axis.set_label_text(label)
    axes.set(xlim=(-0.02, 1.04), ylim=(-0.02, 1.04))
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", fontsize=9, frameon=False, title="larger: more answers", title_fontsize=8)
    return figure


def class_figure(summary: Mapping[str, Any], width: float = WIDE) -> Figure | None:
    """Draw the accuracy of each class, teacher and student; None where it was not measured.

    Args:
        width: width of the figure, in inches.
    """
    shares = {who: summary.get(f"{who}_accuracy_by_class") for who in COLORS}
    if not all(shares.values()):
        return None
    values = {who: np.array(share, float) for who, share in shares.items()}  # None becomes NaN
    classes = np.flatnonzero(~np.isnan(values["student"]))
    if len(classes) > MOST_CLASSES:
        behind = values["student"][classes] - values["teacher"][classes]
        classes = np.sort(classes[np.argsort(behind, kind="stable")[:MOST_CLASSES]])
    figure = Figure(figsize=(width, 3.4), layout="constrained", facecolor="white")
    axes, places = figure.add_subplot(), np.arange(len(classes))
    for who, color in COLORS.items():
        axes.plot(places, values[who][classes], "o", color=color, markersize=9 if who == "teacher" else 6, label=who)
    axes.set_xticks(places, [str(label) for label in classes], fontsize=9 if width > NARROW else 7)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set(xlabel="class", ylabel="accuracy")
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def compared_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """Return rows of this run and the compared ones, below headings; empty without others."""
    runs = summary.get("compared") or []
    if not runs:
        return []
    headings = ["run", "images", "student", "agreement", "calibration error", "settings that differ"]
    return [headings, _row({"run": "this one", **summary}), *map(_row, runs)]


def _row(run: Mapping[str, Any]) -> list[str]:
    figures = [run.get(name) for name in ("student_accuracy", "agreement", "student_calibration_error")]
    shown = [f"{100 * figure:.1f} %" if isinstance(figure, float) else "" for figure in figures]
    differs = ", ".join(f"{name}: {value}" for name, value in run.get("differs", {}).items())
    return [str(run["run"]), f"{run['images']:,} of {run['images_of']}", *shown, differs]
