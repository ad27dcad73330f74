"""Tables of the paper, as `jobs/reproduce.py` made them at the scale of the digits."""

import functools
import json
from typing import Any

from docs.figures.text import FIGURES, ROOT, figure, label, mean, older, table
from raydream.runs.summaries import ReproduceSummary
from raydream.runs.summary import read


def _file(number: int, name: str) -> Any:
    return json.loads((ROOT / "docs" / "results" / f"table_{number}" / name).read_text(encoding="utf-8"))


@functools.cache
def _summary(number: int) -> ReproduceSummary:
    return read(ReproduceSummary, _file(number, "summary.json"))


def _label(number: int, name: str) -> str:
    if "raydream" in _summary(number).versions:
        return label(name).removesuffix(" †")
    return older(name, "§")  # by version 0.1.0; † has a meaning there


def _headline(number: int, column: str = "", digits: int = 1, scale: float = 100, unit: str = " %") -> str:
    """What a table is about, for all its rows: of one column, where it has several."""
    summary = _summary(number)
    rows = {name: row for name, row in summary.figures[summary.headline].items() if name.endswith(column)}
    names = {name: _label(number, name.removesuffix(column).strip()).strip("*") for name in rows}
    return "; ".join(f"{names[name]} {mean(row, digits, unit, scale)}" for name, row in rows.items())


FIGURES["table_1"] = lambda: _headline(1)
FIGURES["table_3"] = lambda: _headline(3, digits=2, scale=1, unit="")
FIGURES["table_4"] = lambda: _headline(4, "−50% filters")
FIGURES["table_6"] = lambda: _headline(6)
FIGURES["table_7"] = lambda: _headline(7)


@figure
def table_2() -> str:
    """Table: the share of images that independent networks name as their target, with two values of alpha_f."""
    figures, other = _summary(2).figures, _file(2, "feature_0.1.json")
    networks = [name for name in figures if name.startswith("digits width")]
    rows = {_label(2, name): [figures[each][name] for each in networks] for name in figures[networks[0]]}
    rows["DeepInversion, α_f = 0.1"] = [other[each]["deep_inversion"] for each in networks]
    return table("images | " + " | ".join(networks), [[name, *map(mean, row)] for name, row in rows.items()])


@figure
def table_3_real() -> str:
    """Table: what looks at real images, beside the Inception score, which does not."""
    figures, lines = _summary(3).figures, []
    for name in figures["inception_score"]:
        shown = [mean(figures[key][name]) for key in ("precision", "recall")]
        lines.append([_label(3, name), mean(figures["frechet_distance"][name], scale=1, unit=""), *shown])
    return table("images | Fréchet distance | precision | recall", lines)
