"""Tables of the paper, as `jobs/reproduce.py` made them at the scale of the digits."""

import functools
import json
from typing import Any

from docs.figures.text import FIGURES, ROOT, figure, label, mean, table


@functools.cache
def _summary(number: int, file: str = "summary") -> Any:
    return json.loads((ROOT / "docs" / "results" / f"table_{number}" / f"{file}.json").read_text(encoding="utf-8"))


def _headline(number: int, column: str = "", digits: int = 1, scale: float = 100, unit: str = " %") -> str:
    """What a table is about, for all its rows: of one column, where it has several."""
    told = _summary(number)
    rows = {name: row for name, row in told[told["headline"]].items() if name.endswith(column)}
    names = {name: label(name.removesuffix(column).strip()).strip("*") for name in rows}
    return "; ".join(f"{names[name]} {mean(row, digits, unit, scale)}" for name, row in rows.items())


FIGURES["table_1"] = lambda: _headline(1)
FIGURES["table_3"] = lambda: _headline(3, digits=2, scale=1, unit="")
FIGURES["table_4"] = lambda: _headline(4, "−50% filters")
FIGURES["table_6"] = lambda: _headline(6)
FIGURES["table_7"] = lambda: _headline(7)


@figure
def table_2() -> str:
    """Table: the share of images that independent networks name as their target, with two values of alpha_f."""
    told, other = _summary(2), _summary(2, "feature_0.1")
    networks = [name for name in told if name.startswith("digits width")]
    rows = {f"{label(name)}": [told[each][name] for each in networks] for name in told[networks[0]]}
    rows["DeepInversion, α_f = 0.1"] = [other[each]["deep_inversion"] for each in networks]
    return table("images | " + " | ".join(networks), [[name, *map(mean, row)] for name, row in rows.items()])


@figure
def table_3_real() -> str:
    """Table: what looks at real images, beside the Inception score, which does not."""
    told = _summary(3)
    lines = []
    for name in told["inception_score"]:
        shown = [mean(told[key][name]) for key in ("precision", "recall")]
        lines.append([label(name), mean(told["frechet_distance"][name], scale=1, unit=""), *shown])
    return table("images | Fréchet distance | precision | recall", lines)
