"""Running BN statistics that no training leaves: never updated, not finite, or out of all proportion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raydream.diagnosis.findings import Finding, Severity
from raydream.networks.batch_norm import batch_norm_layers

LARGEST_SHIFT = 100.0
"""standard deviations that a channel's running mean may be from 0; trained networks stay below 20"""
LARGEST_VARIANCE = 1e6
"""running variance behind the first layer, whose input may be pixels of any unit"""
MOST_DEAD = 0.5
"""share of a layer's channels whose running variance may be nothing"""
DEAD = 1e-8
"""running variance below which a channel says nothing"""
MOST_NAMED = 3


@dataclass(frozen=True)
class LayerStatistics:
    """The running statistics of a BN layer, in numbers.

    Attributes:
        name: of the layer.
        channels: number of them.
        state: trained, untrained (all zeros and ones), not finite, negative variance, huge, dead, or none (the layer
            keeps no running statistics).
        lowest_variance, highest_variance, farthest_mean: over the finite channels; None without statistics.
    """

    name: str
    channels: int
    state: str
    lowest_variance: float | None = None
    highest_variance: float | None = None
    farthest_mean: float | None = None


def bn_statistics(network: nn.Module) -> list[LayerStatistics]:
    """Describe the running statistics of each BN layer, in order of definition."""
    return [
        _described(name, layer, index == 0) for index, (name, layer) in enumerate(batch_norm_layers(network).items())
    ]


def _described(name: str, layer: Any, is_first: bool) -> LayerStatistics:
    if layer.running_mean is None:
        return LayerStatistics(name, int(layer.num_features), "none")
    mean, variance = (each.detach().cpu().double() for each in (layer.running_mean, layer.running_var))
    finite = mean.isfinite() & variance.isfinite()
    seen = variance[finite] if finite.any() else torch.zeros(1)
    far = mean[finite].abs().max() if finite.any() else torch.zeros(())
    state = "trained"
    if not finite.all():
        state = "not finite"
    elif (variance < 0).any():
        state = "negative variance"
    elif (mean == 0).all() and (variance == 1).all():
        state = "untrained"
    elif (variance < DEAD).double().mean() > MOST_DEAD:
        state = "dead"
    elif not is_first and (variance.max() > LARGEST_VARIANCE or _shift(mean, variance) > LARGEST_SHIFT):
        state = "huge"
    return LayerStatistics(name, len(mean), state, float(seen.min()), float(seen.max()), float(far))


def _shift(mean: torch.Tensor, variance: torch.Tensor) -> float:
    living = variance >= DEAD
    return float((mean[living].abs() / variance[living].sqrt()).max()) if living.any() else 0.0


SENTENCES: dict[str, tuple[Severity, str, str]] = {
    "not finite": ("fault", "running statistics hold NaN or infinity", "take another checkpoint"),
    "negative variance": ("fault", "running variances are negative", "take another checkpoint"),
    "untrained": (
        "fault",
        "running statistics are zeros and ones, as before any training",
        "take a checkpoint with its buffers (state_dict, not parameters alone)",
    ),
    "huge": (
        "suspected",
        "running statistics are out of proportion",
        "check that training had converged, and the input's scale",
    ),
    "dead": ("suspected", "most channels have no variance at all", "check that training had converged"),
}
"""by the state of a layer: severity, what it is, what to do"""


def statistics_findings(layers: Sequence[LayerStatistics]) -> list[Finding]:
    """Say what is wrong with the statistics of a network, a sentence for each kind."""
    found = []
    for state, (severity, what, remedy) in SENTENCES.items():
        names = [layer.name for layer in layers if layer.state == state]
        if names:
            shown = ", ".join(names[:MOST_NAMED]) + (
                f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            )
            text = f"{what}: {shown} ({len(names)} of {len(layers)} BN layers)"
            found.append(Finding("statistics", severity, text, remedy))
    return found
