"""A quantized network's layers and calibration images, from a summary."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from raydream.reporting.figures import WIDE

MOST_LAYERS = 30
"""that a figure or a table shows: the most sensitive"""


def source_rows(summary: Mapping[str, Any]) -> list[list[str]] | None:
    """Return accuracy, agreement and calibration error by calibration images; None where none were compared."""
    if not summary.get("sources"):
        return None
    names = ("accuracy", "agreement", "calibration_error")
    rows = [["calibration images", *(name.replace("_", " ") for name in names)]]
    for each in summary["sources"]:
        rows.append([each["source"], *(f"{100 * each[name]:.1f} %" for name in names)])
    return rows


def layer_rows(summary: Mapping[str, Any]) -> list[list[str]] | None:
    """Return the most sensitive layers; None for another job's summary."""
    if not isinstance(summary.get("layers"), list) or not summary["layers"]:
        return None
    rows = [["layer", "weights", "bits of weights, inputs", "divergence (nats)", "agreement"]]
    for each in summary["layers"][:MOST_LAYERS]:
        bits, agreement = f"{each['weight_bits']}, {each['input_bits']}", f"{100 * each['agreement']:.1f} %"
        rows.append([each["layer"], f"{each['weights']:,}", bits, f"{each['divergence']:.3g}", agreement])
    return rows


def sensitivity_figure(summary: Mapping[str, Any], width: float = WIDE) -> Figure | None:
    """Draw the divergence from quantizing each layer alone, largest on top; None for another job's summary.

    Args:
        width: width of the figure, in inches.
    """
    if layer_rows(summary) is None:
        return None
    layers = summary["layers"][:MOST_LAYERS][::-1]
    figure = Figure(figsize=(width, 1.0 + 0.22 * len(layers)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.barh([each["layer"] for each in layers], [each["divergence"] for each in layers], color="#0072B2")
    axes.set_xlabel("KL divergence of the outputs, nats")
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
