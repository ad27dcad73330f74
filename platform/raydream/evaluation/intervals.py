"""Figures over seeds."""

import math
import statistics
from typing import Any

from scipy import stats


def summarize(values: list[float]) -> dict[str, Any]:
    """Return the mean and the half-width of its 95 % interval (Student's t; NaN of one value), with all values."""
    half = half_width(statistics.stdev(values), len(values)) if len(values) > 1 else float("nan")
    return {"mean": statistics.mean(values), "interval": half, "values": values}


def half_width(deviation: float, count: int) -> float:
    """Return half of the 95 % interval (Student's t) of the mean of `count` >= 2 values, given their deviation."""
    return float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
