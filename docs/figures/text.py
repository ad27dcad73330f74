"""Reading results, and writing figures as the documents have them."""

import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from raydream.evaluation.intervals import summarize

ROOT = Path(__file__).resolve().parents[2]
FIGURES: dict[str, Callable[[], str]] = {}
"""by name: the text of a figure"""
LABELS = {
    "abd": "ABD's losses, DeepInversion's images",
    "balanced": "**balanced**",
    "dafl": "DAFL",
    "deep_inversion": "DeepInversion",
    "deepdream": "DeepDream",
    "fast": "fast †",
    "finetune": "fine-tuning",
    "lwf_mc": "LwF.MC",
    "no_finetune": "no fine-tuning",
    "none": "DeepInversion, no fine-tuning",
    "oracle_classify": "oracle (classify)",
    "oracle_distill": "oracle (distill)",
    "taylor": "Taylor",
}
"""what is called otherwise in the documents than in the results"""


def figure(function: Callable[[], str]) -> Callable[[], str]:
    """Register a function under its name."""
    FIGURES[function.__name__] = function
    return function


@functools.cache
def results(name: str) -> Any:
    """What `benchmarks/results/NAME.json` holds."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def label(name: str) -> str:
    """What the documents call a method, a source of images or a criterion."""
    return LABELS.get(name, name)


def older(name: str, mark: str = "†") -> str:
    """The same in a table that version 0.1.0 made: DeepDream has a mark, as its images differ most from today's."""
    return f"{label(name)} {mark}" if name == "deepdream" else label(name)


def table(head: str, rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; `head` has the names of the columns, with `|` between them."""
    columns = [each.strip() for each in head.split("|")]
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns), *rows])


def number(value: float, digits: int = 1, signed: bool = False) -> str:
    """A number with so many digits after the point, halves away from zero, and a minus sign that is one."""
    exact = Decimal(f"{value:.12g}")  # what the value was meant to be, without the rest of its binary fraction
    rounded = exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP) + 0  # no −0
    return f"{rounded:{'+' if signed else ''},}".replace("-", "−")


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 in percent."""
    return f"{number(100 * share, digits)} %"


def percents(shares: Iterable[float], digits: int = 1) -> str:
    """Shares of 1 in percent, with commas between them."""
    return ", ".join(number(100 * share, digits) for share in shares) + " %"


def mean(told: dict[str, Any], digits: int = 1, unit: str = " %", scale: float = 100, signed: bool = False) -> str:
    """A mean, with half of its interval where there is one; of shares, unless another scale is given."""
    half = told["interval"] if "interval" in told else told["spread"]
    between = "" if half is None or math.isnan(half) else f" ± {number(scale * half, digits)}"
    return f"{number(scale * told['mean'], digits, signed)}{between}{unit}"


def over(runs: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Mean and interval of a figure over runs."""
    return summarize([run[name] for run in runs])
