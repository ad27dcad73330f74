"""Figures of a run, from its metrics and its shards: the course of making and learning, and the images.

Metrics are rows of `metrics_table.COLUMNS`. A function returns None where the rows that it needs are missing. Rounds
have the same colors in all figures of a run, and color-blind readers can distinguish all colors.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from raydream.data.sources import evenly_spread
from raydream.errors import ShardError
from raydream.reporting.thinning import joined_bars, thinned_curve
from raydream.reporting.words import WORDS
from raydream.runs.run_folder import RunFolder
from raydream.store.atomic import write_atomically
from raydream.store.records import BatchId, ImageBatch
from raydream.store.shards import ShardStore

WIDE, NARROW = 10.0, 4.2
"""widths of a figure in inches: for a laptop's window, and for a phone's"""
DPI = 100
"""pixels per inch of the picture grid"""

MOST_ROUNDS, MOST_CLASSES, EXAMPLES = 8, 10, 2
"""of the picture grid: rounds and classes at most, and images of each class per round"""
MARGIN_LEFT, MARGIN_TOP, MARGIN = 112, 54, 12
"""of the picture grid, in pixels: left (at least) and top hold the labels"""
GAP, ROUND_GAP = 3, 12
"""of the picture grid, in pixels: between two images, and between two rounds"""
MOST_CURVES = 24
"""batches in the figure of loss terms, and rounds in that of feature distances, at most, evenly spread"""
MOST_MARKERS, MOST_COLORS = 120, 64
"""of a curve of accuracies, and of the scale of rounds"""
_CELL = 64
_MOST_VALUES = 800_000  # pixel values in a picture grid, so that images of any size make a page of few megabytes
_EMPTY = 225  # gray of a cell without an image

# Okabe and Ito's palette.
_BLUE, _VERMILION, _GREEN, _PURPLE, _SKY, _ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"


# --- pictures ---------------------------------------------------------------------------------------------------


def image_grid(batches: Sequence[ImageBatch]) -> Figure:
    """Draw pictures by class (columns) and by round (rows, two examples of each class per round).

    Args:
        batches: one or more, of one image shape. Of more than `MOST_ROUNDS` rounds an even spread is shown. Of more
            than `MOST_CLASSES` classes the first are shown, those that all shown rounds have before others.

    Returns:
        a figure to save at `DPI`, where each pixel of an image is a whole number of pixels; an image without 1 or
        3 channels is shown by its first. A gray cell: the batches hold no (second) image of that class.

    Raises:
        ValueError: there is no batch, or the shapes of the images differ.
    """
    shapes = {batch.images.shape[1:] for batch in batches}
    if len(shapes) != 1:
        raise ValueError(f"image_grid needs batches of one image shape, and was given {sorted(shapes) or 'none'}")
    rounds = evenly_spread(sorted({batch.id.round for batch in batches}), MOST_ROUNDS)
    images, targets = [], []
    for shown in rounds:
        same = sorted((batch for batch in batches if batch.id.round == shown), key=lambda batch: batch.id)
        images.append(np.concatenate([batch.images for batch in same]))
        targets.append(np.concatenate([batch.targets for batch in same]))
    return labeled_grid([f"round {shown}" for shown in rounds], images, targets)


def labeled_grid(labels: Sequence[str], images: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> Figure:
    """Draw a grid as `image_grid` does, with a label for each row.

    Args:
        images, targets: of each row, uint8 [N,C,H,W] of one shape [C,H,W], and int64 [N].
    """
    classes = _shown_classes(targets)
    height, width = _cell_size(images[0].shape[1:], len(labels) * EXAMPLES * len(classes))
    row, column = EXAMPLES * (height + GAP) - GAP + ROUND_GAP, width + GAP
    mosaic = np.full((len(labels) * row - ROUND_GAP, len(classes) * column - GAP, 3), 255, np.uint8)
    for index, (pictures, shown) in enumerate(zip(images, targets, strict=True)):
        for place, label in enumerate(classes):
            found = pictures[shown == label]
            for example in range(EXAMPLES):
                top, left = index * row + example * (height + GAP), place * column
                cell = mosaic[top : top + height, left : left + width]
                cell[...] = _picture(found[example], height, width) if example < len(found) else _EMPTY
    return _labelled(mosaic, row, labels, column, classes)


def save_image_grid(folder: RunFolder) -> Path:
    """Write the picture grid of a run to its images.png, from the first batch of each round shown.

    Returns:
        path of images.png.

    Raises:
        ShardError: there is no shard, or one cannot be read.
        OSError: the folder cannot be written.
    """
    batches = grid_batches(folder)
    if not batches:
        raise ShardError(f"{folder.images} holds no image batch to show")
    figure, path = image_grid(batches), folder.path / "images.png"
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))
    return path


def grid_batches(folder: RunFolder) -> list[ImageBatch]:
    """Read the batches that a picture grid of a run needs: only the first of each round shown.

    Raises:
        ShardError: a shard cannot be read.
    """
    store = ShardStore(folder.images)
    first: dict[int, BatchId] = {}
    for batch in store.committed():
        first[batch.round] = min(batch, first.get(batch.round, batch))
    return [store.read(first[shown]) for shown in evenly_spread(sorted(first), MOST_ROUNDS)]


def _shown_classes(targets: Sequence[np.ndarray]) -> list[int]:
    # A batch of 256 images cannot show each of 1,000 classes, so those that most rounds have come first.
    rounds_with: dict[int, int] = {}
    for labels in targets:
        for label in np.unique(labels):
            rounds_with[int(label)] = rounds_with.get(int(label), 0) + 1
    chosen = sorted(rounds_with, key=lambda label: (-rounds_with[label], label))[:MOST_CLASSES]
    return sorted(chosen)


def _cell_size(shape: tuple[int, ...], cells: int) -> tuple[int, int]:
    # Small images are magnified by a whole number, large ones are reduced.
    channels, height, width = shape
    longest = max(height, width)
    if longest <= _CELL:
        return height * (_CELL // longest), width * (_CELL // longest)
    side = min(longest, 2 * _CELL, max(_CELL // 2, math.isqrt(_MOST_VALUES // (cells * min(channels, 3)))))
    return max(1, height * side // longest), max(1, width * side // longest)


def _picture(image: np.ndarray, height: int, width: int) -> np.ndarray:
    # uint8 [C,H,W] to [height,width,3]: nearest neighbour.
    channels, rows, columns = image.shape
    shown = image if channels == 3 else np.repeat(image[:1], 3, axis=0)
    return shown[:, np.arange(height) * rows // height][:, :, np.arange(width) * columns // width].transpose(1, 2, 0)


def _labelled(mosaic: np.ndarray, row: int, labels: Sequence[str], column: int, classes: list[int]) -> Figure:
    margin = max(MARGIN_LEFT, 24 + 11 * max(map(len, labels)))
    height, width = mosaic.shape[0] + MARGIN_TOP + MARGIN, mosaic.shape[1] + margin + MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    place = (margin / width, MARGIN / height, mosaic.shape[1] / width, mosaic.shape[0] / height)
    axes = figure.add_axes(place)
    axes.imshow(mosaic, interpolation="nearest", aspect="auto")
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=13)
    axes.set_xticks([(index + 0.5) * column for index in range(len(classes))], [str(label) for label in classes])
    middles = [(index + 0.5) * row - ROUND_GAP / 2 for index in range(len(labels))]
    axes.set_yticks(middles, list(labels))
    figure.text(place[0] + place[2] / 2, 1 - 5 / height, "target (class)", ha="center", va="top", fontsize=13)
    return figure


# --- time -------------------------------------------------------------------------------------------------------


def timeline(metrics: pd.DataFrame, width: float = WIDE) -> Figure | None:
    """Draw the activity over time: a lane for the driver's stages, one per generator and one for the student.

    Args:
        width: width of the figure, in inches.
    """
    spans = metrics[metrics["name"].str.startswith("span/").fillna(False).astype(bool) & metrics["duration_s"].notna()]
    working = {str(source) for source in spans["source"]} - {"driver", "student"}
    generators = sorted(working, key=lambda name: (len(name), name))
    lanes = [name for name in ("driver", *generators, "student") if (spans["source"] == name).any()]
    if not lanes:
        return None
    figure = Figure(figsize=(width, 1.5 + 0.36 * len(lanes)), layout="constrained", facecolor="white")
    axes, colors = figure.add_subplot(), _RoundColours(metrics)
    length_s = float((spans["time_s"] + spans["duration_s"]).max())
    for place, lane in enumerate(lanes):
        if lane != "driver":
            rows = joined_bars(spans[spans["source"] == lane], length_s)
            of_rounds = [colors.of(shown) for shown in rows["round"].astype("float64")]
            _bars(axes, place, rows, of_rounds, min(0.4, 3 * width / len(rows)))
    stages = _stages(axes, lanes.index("driver"), spans) if "driver" in lanes else []
    axes.set_yticks(range(len(lanes)), [_plain(lane) for lane in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlabel("time since the run began (s)")
    dress(axes)
    axes.grid(axis="y", visible=False)
    if stages:
        figure.legend(
            handles=stages,
            title="driver's stages",
            loc="outside lower left",
            ncols=fitting(width, 6, 2),
            fontsize=9,
            alignment="left",
            frameon=False,
        )
    colors.bar(figure, [axes])
    return figure


def _stages(axes: Axes, place: int, spans: pd.DataFrame) -> list[Patch]:
    rows = spans[spans["source"] == "driver"]
    handles = []
    colors = (_PURPLE, _ORANGE, _SKY, "0.75", "0.5", _VERMILION)
    for index, name in enumerate(rows["name"].unique()):
        color = colors[index % len(colors)]
        _bars(axes, place, rows[rows["name"] == name], color)
        handles.append(Patch(color=color, label=_plain(str(name).removeprefix("span/"))))
    return handles


def _bars(axes: Axes, place: int, rows: pd.DataFrame, color: object, edge: float = 0.4) -> None:
    bars = list(zip(rows["time_s"].astype(float), rows["duration_s"].astype(float), strict=True))
    axes.broken_barh(bars, (place - 0.36, 0.72), facecolors=color, edgecolor="white", linewidth=edge)


# --- curves -----------------------------------------------------------------------------------------------------


def accuracy_curves(
    metrics: pd.DataFrame, teacher: float | None = None, width: float = WIDE, who: str = "student"
) -> Figure | None:
    """Draw a network's accuracy over its steps, on each split and on synthetic images (the paper's Figure 4).

    Args:
        teacher: the teacher's accuracy on the test split, in [0, 1], for a line of its own.
        width: width of the figure, in inches.
        who: the network that learns, student or teacher.
    """
    kinds = {
        "test": ("real images, test split", _VERMILION, "o", "-"),
        "validation": ("real images, validation split", _BLUE, "s", "--"),
        "synthetic": ("synthetic images, not yet learned from", _GREEN, "^", "-"),
    }
    found = {kind: rows for kind in kinds if len(rows := _points(metrics, f"accuracy/{kind}"))}
    if not found:
        return None
    figure = Figure(figsize=(width, 4.0), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    if teacher is not None and found.keys() & {"test", "validation"}:
        axes.axhline(teacher, color="0.35", linestyle=":", label=f"teacher, test split: {teacher:.1%}")
    for kind, rows in found.items():
        label, color, marker, style = kinds[kind]
        label = f"{label}: {rows['value'].iloc[-1]:.1%} at last"
        at, value = (thinned_curve(rows)[name] for name in ("step", "value"))
        every = 1 + len(at) // MOST_MARKERS
        axes.plot(at, value, style, marker=marker, markevery=every, markersize=4.5, color=color, label=label)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(WORDS[who][0])
    axes.set_ylabel(f"{who}'s accuracy (%)")
    dress(axes)
    figure.legend(loc="outside lower center", ncols=fitting(width, 2, 1), fontsize=9, frameon=False)
    return figure


def student_curves(metrics: pd.DataFrame, width: float = WIDE, who: str = "student") -> Figure | None:
    """Draw the loss of a network that learns, the share that it names as wanted, its learning rate, and its filters.

    Args:
        width: width of the figure, in inches.
        who: student or teacher.
    """
    steps, loss, share = WORDS[who]
    panels = [
        _over_steps(metrics, f"{who}/loss", loss, _BLUE, log=True, steps=steps),
        _over_steps(metrics, f"{who}/agreement", share, _GREEN, share=True, steps=steps),
        _over_steps(metrics, f"{who}/learning_rate", "learning rate", _VERMILION, steps=steps),
        _over_steps(metrics, "pruning/filters", "filters", _PURPLE),
    ]
    return _drawn(panels, width)


def buffer_curves(metrics: pd.DataFrame, samples_per_insert: float | None = None, width: float = WIDE) -> Figure | None:
    """Draw the buffer's size, draws per image, staleness of snapshots, waiting times, and the speed.

    Args:
        samples_per_insert: the configured value, for a separate line.
        width: width of the figure, in inches.
    """
    ratio = metrics[(metrics["name"] != "buffer/samples_per_insert") | (metrics["value"] > 0)]
    panels = [
        _over_steps(metrics, "buffer/images", "images held", _BLUE),
        _over_steps(ratio, "buffer/samples_per_insert", "draws per insert", _VERMILION, asked=samples_per_insert),
        _by_round(metrics, "staleness_steps", "age of the snapshot (steps)", _GREEN),
        _over_steps(metrics, "student/waited_s", "student waited (s)", _PURPLE),
        _over_steps(metrics, "images_per_s", "images made per second", _SKY),
    ]
    return _drawn(panels, width)


def target_share_figure(metrics: pd.DataFrame, width: float = WIDE) -> Figure | None:
    """Draw the share of each batch's images that the teacher classifies as their target, by round.

    Args:
        width: width of the figure, in inches.
    """
    return _drawn([_by_round(metrics, "target_share", "images hitting their target (%)", _BLUE, share=True)], width)


def loss_curves(metrics: pd.DataFrame, width: float = WIDE) -> Figure | None:
    """Draw each loss term over the updates of the pixels: a line per batch (`MOST_CURVES` at most), colored by round.

    Args:
        width: width of the figure, in inches.
    """
    rows = metrics[metrics["name"].str.startswith("loss/").fillna(False).astype(bool)]
    rows = rows.dropna(subset=["value", "batch", "round"])
    batches = evenly_spread(sorted(rows["batch"].unique()), MOST_CURVES)
    rows = rows[rows["batch"].isin(batches)]
    found = {term: _points(rows, term) for term in rows["name"].unique()}
    if not found:
        return None
    figure, panels = panel_grid(len(found), width)
    colors = _RoundColours(metrics)
    for axes, (term, rows) in zip(panels, found.items(), strict=True):
        for _, same in rows.groupby("batch"):
            color = colors.of(same["round"].iloc[0])
            axes.plot(same["step"], same["value"], color=color, linewidth=1.1, alpha=0.85)
        axes.set_title(_plain(term.removeprefix("loss/")), fontsize=11)
        axes.set_xlabel("update of the pixels")
        axes.set_ylabel("term before its coefficient", fontsize=9)
        _log_if_wide(axes, rows["value"])
        dress(axes)
    colors.bar(figure, panels)
    return figure


def distance_figure(metrics: pd.DataFrame, width: float = WIDE) -> Figure | None:
    """Draw the feature distance of each BN layer at a batch's last update: a line per round, mean over its batches.

    Args:
        width: width of the figure, in inches. Of more than `MOST_CURVES` rounds an even spread is shown.
    """
    rows = metrics[metrics["name"].str.startswith("distance/").fillna(False).astype(bool)]
    rows = rows.dropna(subset=["round", "value"])
    if not len(rows):
        return None
    layers = list(rows["name"].unique())
    means = rows.groupby(["round", "name"])["value"].mean().unstack("name").reindex(columns=layers)
    figure = Figure(figsize=(width, 4.2), layout="constrained", facecolor="white")
    axes, colors = figure.add_subplot(), _RoundColours(metrics)
    for index in evenly_spread(range(len(means)), MOST_CURVES):
        shown, values = means.index[index], means.iloc[index].to_numpy(dtype=float)
        axes.plot(values, "-", color=colors.of(shown), linewidth=1.4, marker=".", markersize=7)
    named = evenly_spread(range(len(layers)), fitting(width, 30, 14))
    labels = [_plain(layers[index].removeprefix("distance/")) for index in named]
    axes.set_xticks(named, labels, rotation=90 if len("  ".join(labels)) > 11 * width else 0, fontsize=9)
    axes.set_xlabel("BN layer, from the image to the output", labelpad=8)
    axes.set_ylabel("feature distance (eq. 4)")
    _log_if_wide(axes, rows["value"])
    dress(axes)
    colors.bar(figure, [axes])
    return figure


# --- what they share --------------------------------------------------------------------------------------------

Panel = Callable[[Axes], None] | None
"""draws one panel of a figure; None: nothing to draw"""


def _over_steps(
    metrics: pd.DataFrame, name: str, label: str, color: str, *, log: bool = False, share: bool = False,
    asked: float | None = None, steps: str = "distillation step",
) -> Panel:  # fmt: skip
    rows = _points(metrics, name)

    def draw(axes: Axes) -> None:
        if asked is not None:
            axes.axhline(asked, color="0.35", linestyle=":", label=f"asked for: {asked:g}")
        shown = thinned_curve(rows)
        axes.plot(shown["step"], shown["value"], color=color, linewidth=1.4, marker="." if len(rows) < 60 else "")
        axes.set_xlabel(steps)
        axes.set_ylabel(label)
        if asked is not None:
            axes.legend(frameon=False)
        if log:
            _log_if_wide(axes, rows["value"])
        _limits(axes, share, log)

    return draw if len(rows) else None


def _by_round(metrics: pd.DataFrame, name: str, label: str, color: str, *, share: bool = False) -> Panel:
    rows = _points(metrics, name).dropna(subset=["round"])

    def draw(axes: Axes) -> None:
        dots = axes.plot(rows["round"], rows["value"], "o", color=color, markersize=5, alpha=0.6, markeredgewidth=0)
        dots[0].set_rasterized(len(rows) > 300)
        axes.set_xlabel("round")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _limits(axes, share, log=False)

    return draw if len(rows) else None


def _limits(axes: Axes, share: bool, log: bool) -> None:
    if share:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    elif not log:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    dress(axes)


def _drawn(panels: Sequence[Panel], width: float) -> Figure | None:
    there = [panel for panel in panels if panel]
    if not there:
        return None
    figure, all_axes = panel_grid(len(there), width)
    for axes, panel in zip(all_axes, there, strict=True):
        panel(axes)
    return figure


def panel_grid(count: int, width: float) -> tuple[Figure, list[Axes]]:
    """Make a figure with a number of panels, side by side as far as the width (inches) allows."""
    columns = min(count, max(1, int(width // 3)))
    rows = math.ceil(count / columns)
    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.08)
    figure = Figure(figsize=(width, 0.3 + 2.7 * rows), layout=layout, facecolor="white")
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def _points(metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    # A resumed run may have measured a step twice: the later row counts.
    rows = metrics[(metrics["name"] == name).fillna(False).astype(bool)].dropna(subset=["value"])
    rows = rows.sort_values("time_s", kind="stable").drop_duplicates(["batch", "step"], keep="last")
    rows = rows.astype({"step": "float64", "round": "float64"})
    return rows.sort_values("step", kind="stable")


class _RoundColours:
    # One color per round, from dark to light; the lightest end of the map is hard to see on white.

    def __init__(self, metrics: pd.DataFrame) -> None:
        self._last = int(metrics["round"].max()) if metrics["round"].notna().any() else 0
        self._colors = colormaps["viridis"](np.linspace(0.0, 0.9, self._last + 1))

    def of(self, shown: float) -> tuple[float, ...]:
        return (0.6, 0.6, 0.6, 1.0) if np.isnan(shown) else tuple(self._colors[int(shown)])

    def bar(self, figure: Figure, panels: list[Axes]) -> None:
        shown = evenly_spread(range(self._last + 1), MOST_COLORS)
        edges = np.linspace(-0.5, self._last + 0.5, len(shown) + 1)
        colors = ScalarMappable(BoundaryNorm(edges, len(shown)), ListedColormap(self._colors[shown]))
        ticks = range(0, self._last + 1, 1 + self._last // 6)
        drawn = figure.colorbar(colors, ax=panels, label="round", ticks=ticks, pad=0.01, fraction=0.04, aspect=25)
        drawn.minorticks_off()


def _log_if_wide(axes: Axes, values: pd.Series) -> None:
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > 20 * finite.min():
        axes.set_yscale("log")
        narrow = finite.max() < 1000 * finite.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())


def dress(axes: Axes) -> None:
    """Style axes with a light grid, without a frame above and to the right."""
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def fitting(width: float, wide: int, narrow: int) -> int:
    """Choose between two numbers, for a wide or a narrow figure."""
    return wide if width > 1.5 * NARROW else narrow


def _plain(text: str) -> str:
    # A dollar sign would begin a formula; the end of a layer's long name says more than its beginning.
    return (text if len(text) <= 28 else f"…{text[-27:]}").replace("$", r"\$")
