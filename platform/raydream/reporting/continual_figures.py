"""Figures of class-incremental learning: accuracy on old and new classes, by step and by class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from raydream.reporting.figures import WIDE, dress, panel_grid

MOST_NAMED = 20
"""largest number of classes that a confusion matrix's axes name"""


def colors_of(methods: Sequence[str]) -> dict[str, Any]:
    """Return a color for each method, the same in all figures of a page."""
    return {method: colormaps["tab10"](index % 10) for index, method in enumerate(methods)}


def step_curves(methods: Mapping[str, Any], width: float = WIDE) -> Figure | None:
    """Draw accuracy over all classes, over old and over new ones, after each step; one line a method.

    Args:
        methods: as the summary has them.
        width: width of the figure, in inches.
    """
    figure, panels = panel_grid(3, width)
    colors = colors_of(list(methods))
    for axes, name in zip(panels, ("all", "old", "new"), strict=True):
        for method, values in methods.items():
            shares = [(step, each[f"accuracy_{name}"]) for step, each in enumerate(values["steps"])]
            shares = [(step, share) for step, share in shares if share is not None]
            axes.plot(*zip(*shares, strict=True), "o-", color=colors[method], markersize=4, label=method)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _dress_shares(axes, f"{name} classes", "step")
    _add_legend(figure, panels[0], width)
    return figure


def epoch_curves(curves: Mapping[str, list[list[dict[str, float]]]], width: float = WIDE) -> Figure | None:
    """Draw validation accuracy over epochs, for old and new classes, all steps in a row.

    Args:
        curves: of each method, one course's steps.
    """
    if not curves:
        return None
    figure, panels = panel_grid(2, width)
    colors = colors_of(list(curves))
    for axes, name in zip(panels, ("old", "new"), strict=True):
        for method, steps in curves.items():
            first = 0
            for step in steps:
                epochs = [first + point["epoch"] for point in step]
                label = method if first == 0 else None
                axes.plot(epochs, [point[name] for point in step], color=colors[method], linewidth=1.2, label=label)
                first += len(step)
        _dress_shares(axes, f"{name} classes", "epoch, over all steps")
    _add_legend(figure, panels[0], width)
    return figure


def _dress_shares(axes: Axes, title: str, xlabel: str) -> None:
    axes.set(title=title, xlabel=xlabel, ylim=(-0.02, 1.02))
    axes.title.set_fontsize(10)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    dress(axes)


def _add_legend(figure: Figure, axes: Axes, width: float) -> None:
    columns = 4 if width >= WIDE else 2
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize=9, frameon=False
    )


def confusion_figure(methods: Mapping[str, Any], width: float = WIDE) -> Figure | None:
    """Draw each method's confusion matrix after the last step: images of a class (row) by predicted class (column)."""
    figure, panels = panel_grid(len(methods), width)
    for axes, (method, values) in zip(panels, methods.items(), strict=True):
        counts = np.array(values["confusion"], float)
        axes.imshow(
            counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
        )
        axes.set(title=method, xlabel="named", ylabel="class")
        axes.title.set_fontsize(10)
        if len(counts) <= MOST_NAMED:
            axes.set_xticks(range(len(counts)))
            axes.set_yticks(range(len(counts)))
            axes.tick_params(labelsize=7)
    return figure


def stand_ins(images: Mapping[str, np.ndarray], width: float = WIDE) -> Figure | None:
    """Draw the images of the old classes, a row for each method, one image per class.

    Args:
        images: uint8 [K0,C,H,W] of each method.
    """
    if not images:
        return None
    figure = Figure(figsize=(width, 0.3 + 0.9 * len(images)), layout="constrained", facecolor="white")
    for axes, (method, made) in zip(np.atleast_1d(figure.subplots(len(images), 1)), images.items(), strict=True):
        framed = np.pad(made[:MOST_NAMED], ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)
        row = np.concatenate(list(framed), axis=2)
        shown = row.transpose(1, 2, 0) if len(row) == 3 else row[0]
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(method, fontsize=9, loc="left")
        axes.set_axis_off()
    return figure
