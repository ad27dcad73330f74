"""Figures of a search: good trials, important settings, and the cost of finding the best."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from raydream.reporting.figures import NARROW, dress, panel_grid
from raydream.search.space import Dimension, Space
from raydream.search.trials import Trials

_COLORS = "viridis_r"
_GREY, _ACCENT = "0.8", "#0072B2"


def parallel_coordinates(space: Space, trials: Trials, metric: str, width: float) -> Figure | None:
    """Draw a line for each trial through the values of all settings to its score; stopped ones are thin and gray.

    In a narrow window settings are below each other, so that their names can be read.
    """
    scored = [(trial.scores(metric)[-1], trial) for _, trial in trials.items() if trial.scores(metric)]
    if len(scored) < 2:
        return None
    done = [score for score, trial in scored if trial.status == "done"]
    norm = Normalize(min(done, default=0.0), max(done, default=1.0))
    lowest, highest = min(score for score, _ in scored), max(score for score, _ in scored)
    upright = width > NARROW
    places = np.arange(len(space.dimensions) + 1)
    size = (width, 4.2) if upright else (width, 0.8 + 0.55 * len(places))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.1), facecolor="white")
    axes = figure.add_subplot()
    for score, trial in sorted(scored, key=lambda each: (each[1].status == "done", each[0])):
        shares = [each.share_of(trial.point[each.name]) for each in space.dimensions]
        shares.append((score - lowest) / (highest - lowest) if highest > lowest else 0.5)
        whole = trial.status == "done"
        color = colormaps[_COLORS](norm(score)) if whole else _GREY
        line = (places, shares) if upright else (shares, places)
        axes.plot(*line, color=color, linewidth=1.5 if whole else 0.8, alpha=0.85, zorder=2 if whole else 1)
    names = [*(_short(each.name) for each in space.dimensions), f"score ({metric})"]
    ends = [*(_ends(each) for each in space.dimensions), (f"{lowest:.3g}", f"{highest:.3g}")]
    _scales(axes, places, names, ends, upright)
    if done:
        figure.colorbar(
            ScalarMappable(norm, colormaps[_COLORS]), ax=axes, label=f"score ({metric})", pad=0.02, aspect=30
        )
    return figure


def importance_bars(shares: Mapping[str, float], width: float) -> Figure | None:
    """Draw a bar for each setting's share of the variance of scores."""
    if not shares:
        return None
    names = list(shares)[::-1]
    figure = Figure(
        figsize=(min(width, 8.0), 0.8 + 0.3 * len(names)), layout=ConstrainedLayoutEngine(), facecolor="white"
    )
    axes = figure.add_subplot()
    axes.barh([_short(name) for name in names], [shares[name] for name in names], color=_ACCENT, height=0.65)
    axes.set_xlabel("share of the variance of scores")
    dress(axes)
    return figure


def best_so_far(progress: pd.DataFrame, metric: str, width: float) -> Figure | None:
    """Draw the best score of an ended trial against trials, updates of pixels, and seconds of all trials."""
    if len(progress) < 2:
        return None
    figure, all_axes = panel_grid(3, width)
    labels = {
        "ended": "trials ended",
        "updates": "updates of the pixels of a batch",
        "seconds": "seconds of all trials",
    }
    for axes, (name, label) in zip(all_axes, labels.items(), strict=True):
        axes.step(progress[name], progress["best"], where="post", color=_ACCENT, linewidth=1.8)
        axes.set_xlabel(label)
        axes.set_ylabel(f"best score ({metric})")
        dress(axes)
    return figure


def _scales(axes: Axes, places: np.ndarray, names: list[str], ends: list[tuple[str, str]], upright: bool) -> None:
    for place, (low, high) in zip(places, ends, strict=True):
        if upright:
            axes.axvline(place, color="0.35", linewidth=0.8, zorder=3)
            axes.text(place, -0.04, low, ha="center", va="top", fontsize=8)
            axes.text(place, 1.04, high, ha="center", va="bottom", fontsize=8)
        else:
            axes.axhline(place, color="0.35", linewidth=0.8, zorder=3)
            axes.text(-0.02, place - 0.08, low, ha="left", va="bottom", fontsize=7)
            axes.text(1.02, place - 0.08, high, ha="right", va="bottom", fontsize=7)
    if upright:
        axes.set_xticks(places, names, rotation=20, ha="right", fontsize=8.5)
        axes.tick_params(axis="x", length=0, pad=14)
        axes.set_ylim(-0.02, 1.02)
        axes.set_yticks([])
    else:
        axes.set_yticks(places, names, fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(places) - 0.6, -0.6)
        axes.set_xticks([])
    axes.spines[:].set_visible(False)


def _ends(dimension: Dimension) -> tuple[str, str]:
    return _text(dimension.values[0]), _text(dimension.values[-1])


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short(name: str) -> str:
    """Return a setting's name without the part that most share."""
    return name.removeprefix("synthesis.").removeprefix("coefficients.").replace("$", r"\$")
