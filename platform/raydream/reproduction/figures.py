"""Figures of a table: pictures side by side, learning curves, and features in two dimensions."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from raydream.reporting.figures import DPI, WIDE, dress, panel_grid

CELL_PIXELS = 48
"""side of an image in the grid, about"""
REAL_COLOR = "0.75"


def method_grid(images: Mapping[str, np.ndarray]) -> Figure:
    """Draw images side by side: a row for each method, a column for each class.

    Args:
        images: uint8 [N,C,H,W] by method, one at least; of images without three channels the first is shown.

    Returns:
        a figure to save at `DPI`, where each pixel of a small image is a whole number of pixels.
    """
    side = max(max(each.shape[2:]) for each in images.values())
    scale, columns = max(1, CELL_PIXELS // side), max(map(len, images.values()))
    cell, left, top = scale * side + 4, 160, 8
    width, height = left + columns * cell, top + len(images) * cell
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    for row, (name, pictures) in enumerate(images.items()):
        middle = 1 - (top + (row + 0.5) * cell) / height
        figure.text((left - 8) / width, middle, name.replace("_", " "), ha="right", va="center", fontsize=11)
        for column, image in enumerate(pictures):
            place = (left + column * cell) / width, 1 - (top + (row + 1) * cell - 4) / height
            axes = figure.add_axes((*place, (cell - 4) / width, (cell - 4) / height))
            axes.imshow(_picture(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_axis_off()
    return figure


def _picture(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 2, 0) if len(image) == 3 else image[0]


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, float]]], width: float = WIDE) -> Figure | None:
    """Draw accuracy over distillation steps, a line for each row; a panel for each kind of images.

    Args:
        curves: points by row, each with its `step`.
        width: width of the figure, in inches.
    """
    panels = [("generated", "generated images so far"), ("test", "real test images")]
    there = [each for each in panels if any(each[0] in point for points in curves.values() for point in points)]
    if not there:
        return None
    figure, all_axes = panel_grid(len(there), width)
    colors = colormaps["viridis"](np.linspace(0.0, 0.9, len(curves)))
    for axes, (name, label) in zip(all_axes, there, strict=True):
        for color, (row, points) in zip(colors, curves.items(), strict=True):
            steps = [point["step"] for point in points]
            axes.plot(steps, [point[name] for point in points], color=color, label=row.replace("_", " "))
        axes.set_title(label, fontsize=11)
        axes.set_xlabel("distillation step")
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        dress(axes)
    all_axes[-1].legend(frameon=False, fontsize=9)
    return figure


def projections(points: Mapping[str, np.ndarray], width: float = WIDE) -> Figure | None:
    """Draw features in the plane of two principal components: a panel for each row, real images behind all.

    Args:
        points: [N,2] by row; those of `real` are drawn in each panel.
        width: width of the figure, in inches.
    """
    made = {row: each for row, each in points.items() if row != "real"}
    if not made:
        return None
    figure, all_axes = panel_grid(len(made), width)
    for axes, (row, found) in zip(all_axes, made.items(), strict=True):
        if "real" in points:
            axes.plot(points["real"][:, 0], points["real"][:, 1], ".", markersize=4, color=REAL_COLOR)
        axes.plot(found[:, 0], found[:, 1], ".", markersize=4, color="#0072B2", alpha=0.6)
        axes.set_title(row.replace("_", " "), fontsize=11)
        dress(axes)
    return figure
