"""Charts of class-incremental learning: accuracy on old and new classes, by step and by class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raydream.applications.continual.measures import Accuracies
from raydream.reporting.charts import Axis, Chart, MatrixCell, Mosaic, Panel, Point, banded, category
from raydream.reporting.gallery import picture

MOST_IMAGES = 100
"""images of old classes in a row, at most"""
LEAST_SHARE = 0.005
"""of a row of a confusion matrix, that a cell needs to be drawn"""


def colors_of(methods: Sequence[str]) -> dict[str, str]:
    """Return a color for each method, the same in all charts of a page."""
    return {method: category(index) for index, method in enumerate(methods)}


def step_curves(courses: Mapping[str, Sequence[Sequence[Accuracies]]]) -> Chart:
    """Draw accuracy over all classes, over old and over new ones, after each step; a band from the lowest seed's.

    Args:
        courses: of each method, each seed's accuracies before the first step and after each.
    """
    colors, panels = colors_of(list(courses)), []
    steps = max((len(course) for same in courses.values() for course in same), default=1)
    for name in ("all", "old", "new"):
        curves = {
            method: [
                [(float(step), float(getattr(measured, name))) for step, measured in enumerate(course)
                 if getattr(measured, name) is not None]
                for course in same
            ]
            for method, same in courses.items()
        }  # fmt: skip
        x = Axis("step", names=tuple(map(str, range(steps))))
        panels.append(Panel(f"{name} classes", x, Axis("accuracy", share=True), banded(curves, colors)))
    return Chart(
        "A method that forgets falls in the middle panel; one that learns nothing stays low in the right one. Bands "
        "reach from the lowest to the highest seed.",
        panels,
    )


def epoch_curves(curves: Mapping[str, Sequence[Sequence[Sequence[Mapping[str, float]]]]]) -> Chart | None:
    """Draw validation accuracy over epochs, for old and new classes, all steps in a row; None without curves.

    Args:
        curves: of each method, of each seed, the steps and their epochs.
    """
    if not any(step for courses in curves.values() for steps in courses for step in steps):
        return None
    colors, panels = colors_of(list(curves)), []
    for name in ("old", "new"):
        rows = {method: [_in_a_row(steps, name) for steps in courses] for method, courses in curves.items()}
        x = Axis("epoch, over all steps")
        panels.append(Panel(f"{name} classes", x, Axis("accuracy", share=True), banded(rows, colors)))
    return Chart(
        "Old classes should stay high while new ones rise; a step's beginning shows what its first epoch costs.", panels
    )


def _in_a_row(steps: Sequence[Sequence[Mapping[str, float]]], name: str) -> list[Point]:
    points: list[Point] = []
    first = 0
    for step in steps:
        points += [(float(first + point["epoch"]), float(point[name])) for point in step]
        first += len(step)
    return points


def confusion_figure(methods: Mapping[str, Any]) -> Chart | None:
    """Draw each method's confusion matrix after the last step: images of a class (row) by predicted class (column).

    Cells below 0.5 % of their row are left out.
    """
    panels = []
    for method, values in methods.items():
        counts = np.array(values["confusion"], float)
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        cells = [
            MatrixCell(row, column, float(shares[row, column]),
                 f"class {row} named {column}: {counts[row, column]:,.0f} images ({shares[row, column]:.1%})")
            for row, column in np.argwhere(shares >= LEAST_SHARE).tolist()
        ]  # fmt: skip
        names = tuple(map(str, range(len(counts))))
        panels.append(Panel(method, Axis("named (downwards: class)", names=names), Axis("class"), cells=cells))
    caption = "All weight should lie on the diagonal; a dark column on the right is new classes taking over old images."
    return Chart(caption, panels) if panels else None


def stand_ins(images: Mapping[str, np.ndarray]) -> Mosaic | None:
    """Show the images of the old classes, a row for each method, one image per class; None without images.

    Args:
        images: uint8 [K0,C,H,W] of each method.
    """
    if not images:
        return None
    count = min(MOST_IMAGES, max(map(len, images.values())))
    rows = [(method, [[picture(image)] for image in made[:count]]) for method, made in images.items()]
    return Mosaic("Each column should show one class.", [str(label) for label in range(count)], rows)
