"""A quantized network's layers and calibration images, from a summary."""

from collections.abc import Mapping
from typing import Any

from raydream.reporting.charts import Bars, Table, best_rows

MOST_LAYERS = 30
"""that a chart shows: the most sensitive"""


def source_rows(summary: Mapping[str, Any]) -> Table | None:
    """Return accuracy, agreement and calibration error by calibration images; None where none were compared."""
    sources = summary.get("sources")
    if not sources:
        return None
    names = ("accuracy", "agreement", "calibration_error")
    rows = [[each["source"], *(f"{100 * each[name]:.1f} %" for name in names)] for each in sources]
    headings = ["calibration images", *(name.replace("_", " ") for name in names)]
    return Table(headings, rows, best_rows([each["accuracy"] for each in sources]))


def layer_rows(summary: Mapping[str, Any]) -> Table | None:
    """Return all layers, the most sensitive first; None for another job's summary."""
    if not isinstance(summary.get("layers"), list) or not summary["layers"]:
        return None
    rows = []
    for each in summary["layers"]:
        bits, agreement = f"{each['weight_bits']}, {each['input_bits']}", f"{100 * each['agreement']:.1f} %"
        rows.append([each["layer"], f"{each['weights']:,}", bits, f"{each['divergence']:.3g}", agreement])
    return Table(["layer", "weights", "bits of weights, inputs", "divergence (nats)", "agreement"], rows)


def sensitivity_figure(summary: Mapping[str, Any]) -> Bars | None:
    """Draw the divergence from quantizing each layer alone, largest on top; None for another job's summary."""
    if layer_rows(summary) is None:
        return None
    layers = summary["layers"][:MOST_LAYERS]
    rows = [(each["layer"], float(each["divergence"]), f"{each['divergence']:.3g} nats") for each in layers]
    return Bars("A layer far above the others is worth keeping in floating point (quantization.keep).", rows)
