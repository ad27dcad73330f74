"""Figures over seeds."""

import statistics
from typing import Any

from scipy import stats


def summarise(values: list[float]) -> dict[str, Any]:
    """Mean and the half-width of its 95 % interval (Student's t; NaN of one value), with all values."""
    half = float("nan")
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": statistics.mean(values), "interval": half, "values": values}
