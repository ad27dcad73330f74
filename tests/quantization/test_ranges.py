"""Grids: where they lie, that zero is on them, and that what is called the best is the best of many."""

import numpy as np
import pytest
import torch
from torch import nn

from raydream.networks.quantized import quantizers_of
from raydream.quantization.ranges import (
    PERCENTILE,
    Grid,
    Histogram,
    calibrated,
    grid_between,
    input_grid,
    observe,
    weight_steps,
)


def histogram(values: np.ndarray, bins: int = 2048) -> Histogram:
    counts, edges = np.histogram(values, bins)
    return Histogram(counts.astype(float), float(edges[0]), float(edges[-1]))


@pytest.mark.parametrize(
    ("low", "high", "bits", "grid"),
    [
        (0.0, 15.0, 4, Grid(1.0, 0, 15)),
        (-8.0, 7.0, 4, Grid(1.0, -8, 7)),
        (-1.0, 2.0, 2, Grid(1.0, -1, 2)),
        (3.0, 6.0, 2, Grid(2.0, 0, 3)),
        (-6.0, -3.0, 2, Grid(2.0, -3, 0)),
        (0.0, 255.0, 8, Grid(1.0, 0, 255)),
    ],
)
def test_a_grid_covers_its_interval_and_holds_zero(low, high, bits, grid):
    assert grid_between(low, high, bits) == grid


def test_an_input_that_is_always_zero_has_a_grid_that_keeps_it():
    grid = grid_between(0.0, 0.0, 4)
    assert grid.step > 0 and grid.error(np.zeros(1), np.ones(1)) == 0


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_mse_is_no_worse_than_the_others(bits):
    values = np.random.default_rng(0).laplace(size=20_000)
    seen = histogram(values)
    errors = {
        method: input_grid(seen, bits, method).error(values, np.ones_like(values))
        for method in ("min_max", "percentile", "mse")
    }
    assert errors["mse"] <= 1.01 * min(errors.values())
    if bits <= 4:
        assert errors["mse"] < 0.5 * errors["min_max"]


def test_percentile_leaves_the_stated_share_outside():
    values = np.random.default_rng(0).normal(size=200_000)
    grid = input_grid(histogram(values), 8, "percentile")
    outside = np.mean((values < grid.low * grid.step) | (values > grid.high * grid.step))
    assert 0 < outside < 3 * (1 - PERCENTILE / 100)
    assert input_grid(histogram(values), 8, "min_max").step > grid.step


def test_weights_have_the_best_of_many_steps_in_each_channel():
    weight = (
        torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-2, 1, 5)[:, None, None, None]
    )
    steps = weight_steps(weight, 4)

    def error(row: torch.Tensor, step: float) -> float:
        return float(((row / step).round().clamp(-8, 7) * step - row).square().mean())

    for row, step in zip(weight.flatten(1), steps.tolist(), strict=True):
        tried = [error(row, float(share * row.abs().max() / 7)) for share in np.linspace(0.05, 1.2, 500)]
        assert error(row, step) <= 1.05 * min(tried)


def test_a_channel_of_zeros_stays_zero():
    steps = weight_steps(torch.zeros(2, 3), 4)
    assert (steps > 0).all()


def test_histograms_are_of_what_enters_layers_of_all_batches():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    nn.init.zeros_(network[0].bias)  # so that ReLU cuts off one sign of the pixels, whatever the weights
    batches = [torch.randn(4, 1, 2, 2), torch.randn(3, 1, 2, 2) + 2]
    seen = observe(network, ["0", "3"], lambda: batches)
    everything = torch.cat(batches)
    assert (seen["0"].low, seen["0"].high) == (float(everything.min()), float(everything.max()))
    assert seen["0"].counts.sum() == everything.numel()
    assert seen["3"].low == 0.0 and seen["3"].counts.sum() == 7 * 8
    assert not network[0]._forward_pre_hooks
    expected = np.histogram(everything.numpy(), 2048)[0]
    assert np.abs(seen["0"].counts - expected).sum() <= 2  # at edges of bins


def test_an_input_that_never_changes_can_be_observed():
    network = nn.Sequential(nn.Linear(2, 2))
    seen = observe(network, ["0"], lambda: [torch.full((3, 2), 1.5)])
    grid = input_grid(seen["0"], 4, "mse")
    assert abs(round(1.5 / grid.step) * grid.step - 1.5) < 0.1


@torch.no_grad()
def test_more_bits_answer_more_like_the_float_network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.PReLU(), nn.Flatten(), nn.Linear(128, 5)
    )
    x = torch.randn(16, 3, 8, 8)
    layers = ["0", "2", "5"]
    seen = observe(network, layers, lambda: [x])
    errors = []
    for bits in (2, 4, 6, 8):
        made = calibrated(network, dict.fromkeys(layers, (bits, bits)), seen, "mse")
        errors.append(float((made(x) - network(x)).norm() / network(x).norm()))
        assert len(quantizers_of(made)) == 3 and not quantizers_of(network)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02 and errors[0] > 0.1
