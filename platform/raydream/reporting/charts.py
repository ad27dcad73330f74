"""Charts as plain data, and their geometry: what the page's template draws as SVG and its script makes alive.

A chart is drawn once, for windows of any width: lines are paths in a square of `SIZE` units that the browser stretches,
and all text is HTML. Colors are names of the page's style: `c0`, `c1`, ... for categories, `r0`, ... for an order such
as that of rounds, `soft` for what is beside the point; so charts follow the reader's light or dark mode.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

SIZE = 1000
"""units of a panel's width and height"""
CATEGORIES, ORDERED = 8, 8
"""numbers of colors for categories, and for an order; further categories have the colors again, dashed"""
MOST_MARKED = 60
"""points of a line up to which each has a dot"""
MOST_NAMES = 12
"""named ticks of an axis"""
TICKS = 5
"""ticks of an axis, about"""

Point = tuple[float, float]
Tick = tuple[float, str]
"""place in percent of the axis, from the left or from below, and its text"""


def category(index: int) -> str:
    """Return the color of a category."""
    return f"c{index % CATEGORIES}" + (" dashed" if index >= CATEGORIES else "")


def ordered(place: float, last: float) -> str:
    """Return the color of a place in an order from 0 to `last`; of an unknown one, NaN, a gray."""
    if not math.isfinite(place):
        return "soft"
    return f"r{round((ORDERED - 1) * min(1.0, max(0.0, place / last)))}" if last > 0 else "r0"


def of_rounds(last: float) -> tuple[str, str]:
    """Return the scale of a chart whose colors are those of rounds."""
    return "round 0", f"{last:.0f}"


@dataclass(frozen=True)
class Axis:
    """An axis of a panel.

    Attributes:
        label: the quantity, with its unit.
        share: values are shares in [0, 1], shown in percent; the axis reaches up to 1, and down to 0 unless all
            values are above a half.
        log: logarithmic, where the values are above 0 and differ by a factor of 20 at least.
        zero: the axis reaches down to 0.
        names: of the values 0, 1, 2, ...
        ends: lowest and highest value; None: those of the lines.
    """

    label: str
    share: bool = False
    log: bool = False
    zero: bool = False
    names: tuple[str, ...] = ()
    ends: Point | None = None


@dataclass(frozen=True)
class Line:
    """A line, or dots, in a panel.

    Attributes:
        name: that the legend and a reader who points at it see.
        points: in order; what is not finite leaves a gap.
        color: see the module's docstring.
        dots: points are not connected.
        steps: the value holds until the next point.
        band: x, lowest and highest value around the line, as over seeds.
        notes: a text for each point; empty: none.
        key: whether the legend names it.
        marked: whether each of up to `MOST_MARKED` points has a dot.
    """

    name: str
    points: Sequence[Point]
    color: str = "c0"
    dots: bool = False
    steps: bool = False
    band: Sequence[tuple[float, float, float]] = ()
    notes: Sequence[str] = ()
    key: bool = True
    marked: bool = True


@dataclass(frozen=True)
class MatrixCell:
    """A square of a matrix: its row and column, its shade in [0, 1] and what it says."""

    row: int
    column: int
    shade: float
    text: str


@dataclass(frozen=True)
class Drawn:
    """A line as the template draws it: SVG paths in units of the panel, and where the line's dots are."""

    line: Line
    path: str
    dots: str
    band: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above it, what is drawn upwards.
        x, y: its axes.
        lines: in the order in which they are drawn.
        cells: of a matrix, whose rows go down.
        width: least width in pixels, below which it is scrolled; 0: any.
    """

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line] = ()
    cells: Sequence[MatrixCell] = ()
    width: int = 0

    @property
    def scales(self) -> tuple["Scale", "Scale"]:
        points = [(x, y) for line in self.lines for x, y in line.points]
        around = [(x, y) for line in self.lines for x, *both in line.band for y in both]
        return tuple(  # type: ignore[return-value]
            Scale.of(axis, [each[index] for each in (*points, *around)]) for index, axis in enumerate((self.x, self.y))
        )

    @property
    def drawn(self) -> list[Drawn]:
        """Return the paths of all lines."""
        x, y = self.scales
        return [_drawn(line, x, y) for line in self.lines]

    @property
    def squares(self) -> list[tuple[float, float, float, MatrixCell]]:
        """Return left, top and side of each cell, in units of the panel."""
        side = SIZE / max(1, len(self.x.names))
        return [(cell.column * side, cell.row * side, side, cell) for cell in self.cells]

    @property
    def ticks(self) -> tuple[list[Tick], list[Tick]]:
        """Return the ticks of both axes; names of a matrix stand at the middles of its squares."""
        if self.cells:
            count = max(1, len(self.x.names))
            every = 1 + (count - 1) // (2 * MOST_NAMES)
            places = [(100 * (index + 0.5) / count, name) for index, name in enumerate(self.x.names)][::every]
            return places, [(100 - place, name) for place, name in places]
        x, y = self.scales
        return x.ticks, y.ticks


@dataclass(frozen=True)
class Scale:
    """An axis with its ends.

    Attributes:
        low, high: the ends, where `log` the logarithms of them.
    """

    axis: Axis
    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, axis: Axis, values: Iterable[float]) -> "Scale":
        """Return the scale that shows these values."""
        if axis.names:
            margin = 0.5 if len(axis.names) == 1 else 0.04 * (len(axis.names) - 1)
            return cls(axis, -margin, len(axis.names) - 1 + margin)
        if axis.ends:
            return cls(axis, *axis.ends)
        finite = [value for value in values if math.isfinite(value)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        if axis.log and low > 0 and high > 20 * low:
            low, high = math.log10(low), math.log10(high)
            return cls(axis, low - 0.04 * (high - low), high + 0.04 * (high - low), log=True)
        if axis.share:
            low, high = low if low > 0.5 else min(low, 0.0), max(high, 1.0)
        elif axis.zero:
            low, high = min(low, 0.0), max(high, 0.0)
        margin = max(0.03 * (high - low), 1e-3 * max(abs(low), abs(high)), 1e-9)
        return cls(axis, low - (0.0 if axis.zero and low == 0 else margin), high + margin)

    def share(self, value: float) -> float:
        """Return where a value lies between the ends, in [0, 1]."""
        if self.log:
            value = math.log10(value) if value > 0 else self.low
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    @property
    def ticks(self) -> list[Tick]:
        return [(100 * self.share(value), text) for value, text in self._texts()]

    def _texts(self) -> Iterator[tuple[float, str]]:
        if self.axis.names:
            last = len(self.axis.names) - 1
            shown = {*np.linspace(0, last, min(last + 1, MOST_NAMES)).round().astype(int).tolist()}
            yield from ((index, self.axis.names[index]) for index in sorted(shown))
        elif self.log:
            subs = (1, 2, 5) if self.high - self.low < 2 else (1,)
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            every = 1 + len(decades) // (TICKS + 2)
            for decade in decades[::every]:
                for sub in subs:
                    value = sub * 10.0**decade
                    if self.low <= math.log10(value) <= self.high:
                        yield value, number(value)
        else:
            step = _step(self.high - self.low)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            for index in range(first, last + 1):
                value = index * step
                yield value, f"{round(100 * value, 9):g} %" if self.axis.share else number(value)


def number(value: float) -> str:
    """Format a number for a tick."""
    value = round(value, 12)
    return f"{value:,g}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.3g}"


def _step(length: float) -> float:
    rough = length / TICKS
    decade = 10.0 ** math.floor(math.log10(rough))
    return next(step * decade for step in (1, 2, 2.5, 5, 10) if step * decade >= 0.8 * rough)


def _drawn(line: Line, x: Scale, y: Scale) -> Drawn:
    places = [
        (SIZE * x.share(at), SIZE * (1 - y.share(value))) if math.isfinite(at) and math.isfinite(value) else None
        for at, value in line.points
    ]
    marks = line.dots or len(line.points) == 1 or (line.marked and len(line.points) <= MOST_MARKED)
    dots = "".join(f"M{place[0]:.4g} {place[1]:.4g}h0" for place in places if place) if marks else ""
    path, before = [], None
    for place in () if line.dots else places:
        if place and before:
            path.append(f"H{place[0]:.4g}V{place[1]:.4g}" if line.steps else f"L{place[0]:.4g} {place[1]:.4g}")
        elif place:
            path.append(f"M{place[0]:.4g} {place[1]:.4g}")
        before = place
    return Drawn(line, "".join(path), dots, _band(line.band, x, y))


def _band(band: Sequence[tuple[float, float, float]], x: Scale, y: Scale) -> str:
    finite = [each for each in band if all(map(math.isfinite, each))]
    edge = [(at, low) for at, low, _ in finite] + [(at, high) for at, _, high in reversed(finite)]
    corners = [f"{SIZE * x.share(at):.4g} {SIZE * (1 - y.share(value)):.4g}" for at, value in edge]
    return f"M{'L'.join(corners)}Z" if corners else ""


# --- what a page shows ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chart:
    """Panels beside each other, with one legend.

    Attributes:
        caption: one sentence: what the reader should see in it.
        panels: at least one.
        scale: what the first and the last color of an order stand for; None: the chart has no such colors.
    """

    kind: ClassVar[str] = "chart"
    caption: str
    panels: Sequence[Panel]
    scale: tuple[str, str] | None = None

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Return name and color of each line that the legend names: where a panel has more than one."""
        several = [panel for panel in self.panels if len(panel.lines) > 1]
        return list({line.name: line.color for panel in several for line in panel.lines if line.key}.items())

    @property
    def data(self) -> dict[str, Any]:
        """Return what the page's script shows and offers for download, in the types of JSON."""
        return {"caption": self.caption, "panels": [_data(panel) for panel in self.panels]}


def _data(panel: Panel) -> dict[str, Any]:
    axes: dict[str, dict[str, Any]] = {}
    for name, scale in zip("xy", panel.scales, strict=True):
        axis = scale.axis
        axes[name] = {"label": axis.label, "low": _plain(scale.low), "high": _plain(scale.high), "log": scale.log}
        axes[name] |= {"share": axis.share, "names": list(axis.names)}
    lines = []
    for line in panel.lines:
        values: dict[str, Any] = {"name": line.name, "x": [], "y": []}
        for at, value in line.points:
            values["x"].append(_plain(at))
            values["y"].append(_plain(value))
        if line.band:
            for index, name in ((1, "low"), (2, "high")):
                values[name] = [_plain(each[index]) for each in line.band]
        if line.notes:
            values["notes"] = list(line.notes)
        lines.append(values)
    cells = [{"row": cell.row, "column": cell.column, "text": cell.text} for cell in panel.cells]
    return {"title": panel.title, **axes, "lines": lines, **({"cells": cells} if cells else {})}


def _plain(value: float) -> float | None:
    return float(f"{value:.9g}") if math.isfinite(value) else None


@dataclass(frozen=True)
class Lane:
    """A lane of a timeline: bars of start, length (both in seconds), color and text."""

    name: str
    bars: Sequence[tuple[float, float, str, str]]


@dataclass(frozen=True)
class Timeline:
    """Lanes of bars over time.

    Attributes:
        caption: as of a chart.
        lanes: from the top.
        length_s: seconds from the left to the right.
        stages: names and colors of the driver's stages.
        scale: as of a chart.
    """

    kind: ClassVar[str] = "timeline"
    caption: str
    lanes: Sequence[Lane]
    length_s: float
    stages: Sequence[tuple[str, str]] = ()
    scale: tuple[str, str] | None = None

    @property
    def drawn(self) -> list[tuple[str, list[tuple[str, str, str, str]]]]:
        """Return each lane's name and its bars: left and width in units of a panel, color and text."""
        unit = SIZE / self.length_s if self.length_s > 0 else 0.0
        return [
            (lane.name, [(f"{start * unit:.4g}", f"{max(1.0, length * unit):.4g}", color, text)
                         for start, length, color, text in lane.bars])
            for lane in self.lanes
        ]  # fmt: skip

    @property
    def ticks(self) -> list[Tick]:
        return Scale(Axis(""), 0.0, self.length_s or 1.0).ticks


@dataclass(frozen=True)
class Bars:
    """Horizontal bars: name, length (at least 0) and text of each."""

    kind: ClassVar[str] = "bars"
    caption: str
    rows: Sequence[tuple[str, float, str]]

    @property
    def widths(self) -> list[tuple[str, float, str]]:
        """Return name, width in percent of the longest, and text."""
        longest = max((length for _, length, _ in self.rows), default=0.0)
        return [(name, 100 * length / longest if longest > 0 else 0.0, text) for name, length, text in self.rows]


@dataclass(frozen=True)
class Mosaic:
    """Small pictures in a table: rows of some, below names of columns.

    Attributes:
        caption: as of a chart.
        columns: their names.
        rows: name, and for each column its pictures as data URIs.
    """

    kind: ClassVar[str] = "mosaic"
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Sequence[str]]]]


def banded(curves: Mapping[str, Sequence[Sequence[Point]]], colors: Mapping[str, str]) -> list[Line]:
    """Draw the mean of several curves of each name, within a band from the lowest to the highest of them.

    Args:
        curves: by name, curves over some of the same x.
        colors: by name.
    """
    lines = []
    for name, same in curves.items():
        values: dict[float, list[float]] = {}
        for at, value in (point for curve in same for point in curve):
            if math.isfinite(value):
                values.setdefault(at, []).append(value)
        ordered_values = sorted(values.items())
        mean = [(at, sum(found) / len(found)) for at, found in ordered_values]
        band = [(at, min(found), max(found)) for at, found in ordered_values] if len(same) > 1 else []
        lines.append(Line(name, mean, colors[name], band=band))
    return lines


@dataclass(frozen=True)
class Table:
    """Rows of text under headings, which a reader can sort.

    Attributes:
        headings: of the columns; the first column names the rows and stays where the table is scrolled.
        rows: of text.
        best: indices of the rows that are marked as the best.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: Sequence[int] = field(default_factory=tuple)


def best_rows(values: Sequence[float | None], higher_is_better: bool = True) -> list[int]:
    """Return the indices of the best values; none where all are equal, or there are fewer than two."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len({*known}) < 2:
        return []
    best = max(known) if higher_is_better else min(known)
    return [index for index, value in enumerate(values) if value == best]
