"""Step sizes of quantizers from images: histograms of layers' inputs, and the grids that fit them."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from raydream.networks.quantized import float_weight, quantized, quantizers_of

RangeMethod = Literal["min_max", "percentile", "mse"]

BINS = 2048
PERCENTILE = 99.99
"""percent of the values of an input that the percentile method keeps inside of the grid"""
CANDIDATES = 100
"""grids that the mse method compares; the i-th reaches i hundredths of the way to the extremes"""
LEAST_STEP = 1e-12
"""of a channel that is all zeros"""


@dataclass(frozen=True)
class Histogram:
    """A histogram of values.

    Attributes:
        counts: float64 [B], number of values in each bin.
        low, high: the lowest and highest value; the bins between them are equally wide.
    """

    counts: np.ndarray
    low: float
    high: float

    @property
    def centers(self) -> np.ndarray:
        """Return the middle of each bin, float64 [B]."""
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return 0.5 * (edges[1:] + edges[:-1])


@dataclass(frozen=True)
class Grid:
    """The integers low..high times a step size.

    Attributes:
        step: > 0.
        low, high: integers, low <= 0 <= high.
    """

    step: float
    low: int
    high: int

    def error(self, values: np.ndarray, counts: np.ndarray) -> float:
        """Return the mean squared distance of values, each counted `counts` times, from their nearest grid values."""
        nearest = np.clip(np.round(values / self.step), self.low, self.high) * self.step
        return float(np.average((values - nearest) ** 2, weights=counts))


def grid_between(low: float, high: float, bits: int) -> Grid:
    """Return the grid of 2^bits values that covers an interval, moving the ends so that it holds 0."""
    low, high, levels = min(low, 0.0), max(high, 0.0), 2**bits - 1
    step = max((high - low) / levels, LEAST_STEP)
    lowest = -round(-low / step)
    return Grid(step, lowest, lowest + levels)


def input_grid(seen: Histogram, bits: int, method: RangeMethod) -> Grid:
    """Return the grid for a layer's input.

    Args:
        seen: histogram of its values.
        method: min_max: all values lie inside; percentile: `PERCENTILE` percent of them do, with half of the rest on
            either side; mse: the mean squared error is the least of `CANDIDATES` intervals of one shape.
    """
    if method == "min_max":
        return grid_between(seen.low, seen.high, bits)
    if method == "percentile":
        share = np.cumsum(seen.counts) / seen.counts.sum()
        outside = (1.0 - PERCENTILE / 100.0) / 2.0
        first = int(np.searchsorted(share, outside, side="right"))
        last = int(np.searchsorted(share, 1.0 - outside, side="left"))
        edges = np.linspace(seen.low, seen.high, len(seen.counts) + 1)
        return grid_between(float(edges[first]), float(edges[min(last, len(seen.counts) - 1) + 1]), bits)
    filled = seen.counts > 0
    values, counts = seen.centers[filled], seen.counts[filled]
    shares = np.arange(1, CANDIDATES + 1) / CANDIDATES
    grids = [grid_between(share * seen.low, share * seen.high, bits) for share in shares]
    return min(grids, key=lambda grid: grid.error(values, counts))


def weight_steps(weight: Tensor, bits: int) -> Tensor:
    """Return the step sizes [C] of a weight [C,...]: the least mean squared error of `CANDIDATES` per channel."""
    rows = weight.detach().float().flatten(1)
    most, low, high = rows.abs().amax(1), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    best, error = most / high, torch.full_like(most, torch.inf)
    for share in torch.arange(1, CANDIDATES + 1) / CANDIDATES:
        step = (share * most / high).clamp_min(LEAST_STEP)[:, None]
        found = ((rows / step).round().clamp(low, high) * step - rows).square().mean(1)
        best, error = torch.where(found < error, step[:, 0], best), torch.minimum(found, error)
    steps: Tensor = best.clamp_min(LEAST_STEP)
    return steps


@torch.no_grad()
def observe(network: nn.Module, layers: Iterable[str], batches: Callable[[], Iterable[Tensor]]) -> dict[str, Histogram]:
    """Collect histograms of layers' inputs; those of layers that no batch reaches are missing.

    Args:
        network: floating-point, in eval mode; stays unchanged.
        batches: called twice (for the extremes, then to count), returns normalized [N,C,H,W], N >= 1.
    """
    layers = list(layers)
    extremes: dict[str, tuple[float, float]] = {}
    counts: dict[str, Tensor] = {}

    def widen(name: str, x: Tensor) -> None:
        low, high = (float(each) for each in torch.aminmax(x))
        known = extremes.get(name, (low, high))
        extremes[name] = min(low, known[0]), max(high, known[1])

    def count(name: str, x: Tensor) -> None:
        low, high = extremes[name]
        # A value that never changes has a bin of its own about it.
        low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
        extremes[name] = low, high
        found = torch.histc(x.float(), BINS, min=low, max=high).double().cpu()
        counts[name] = counts.get(name, 0.0) + found

    for see in (widen, count):
        _watch(network, layers, batches(), see)
    return {name: Histogram(counts[name].numpy(), *ends) for name, ends in extremes.items()}


def _watch(
    network: nn.Module, layers: list[str], batches: Iterable[Tensor], see: Callable[[str, Tensor], None]
) -> None:
    def hook_of(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any) -> None:
            see(name, inputs[0])

        return hook

    hooks = [network.get_submodule(name).register_forward_pre_hook(hook_of(name)) for name in layers]
    try:
        for batch in batches:
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()


def calibrated(
    network: nn.Module, bits: Mapping[str, tuple[int, int]], seen: Mapping[str, Histogram], method: RangeMethod
) -> nn.Module:
    """Copy and quantize a network, with grids that fit its weights and its layers' inputs.

    Weights always have the grids of least squared error, as they are known exactly and need no images.

    Args:
        bits: bits of the weights and the input of each quantized layer.
        seen: histograms of `observe`, for each of them.
    """
    copied = quantized(copy.deepcopy(network), bits)
    for name, (weights, inputs) in quantizers_of(copied).items():
        of_weights, of_input = bits[name]
        weights.calibrate(weight_steps(float_weight(copied.get_submodule(name)), of_weights))
        grid = input_grid(seen[name], of_input, method)
        inputs.calibrate(torch.tensor([grid.step]), grid.low)
    return copied
