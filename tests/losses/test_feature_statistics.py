import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from raydream.losses.feature_statistics import (
    FeatureDistances,
    SmoothedDistances,
    feature_distances,
    feature_statistics,
)
from raydream.networks.observed import ObservedNetwork
from tests.networks.known import mixed_network, slow_statistics, some_images


def slow_distance(x: np.ndarray, layer: nn.Module) -> float:
    """Eq. 5 for one layer."""
    mean, variance = slow_statistics(x)
    total = 0.0
    for seen, remembered in ((mean, layer.running_mean), (variance, layer.running_var)):
        total += math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(seen, remembered.tolist(), strict=True)))
    return total


def test_distance_adds_the_two_norms_without_squaring_them():
    statistics = torch.tensor([[3.0, 4.0, 8.0], [5.0, 12.0, -6.0]])  # of a layer of two channels, and of one of one
    assert feature_distances(statistics, torch.zeros(2, 3), [2, 1]).tolist() == [18.0, 14.0]


def test_distance_is_zero_with_a_zero_gradient_where_statistics_agree():
    statistics = torch.tensor([[1.0, 2.0], [0.5, 3.0]], requires_grad=True)
    (distance,) = feature_distances(statistics, statistics.detach().clone(), [2])
    distance.backward()
    assert 0.0 <= distance.item() < 1e-18
    assert statistics.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_the_first_layer_weighs_as_told_and_the_others_once():
    distances = torch.tensor([2.0, 3.0, 5.0])
    assert [feature_statistics(distances, first).item() for first in (0.0, 1.0, 10.0)] == [8.0, 10.0, 28.0]


def test_gradients_of_the_distance_are_right():
    random = torch.Generator().manual_seed(0)
    statistics, running = torch.randn(2, 2, 6, dtype=torch.float64, generator=random)
    distances = functools.partial(feature_distances, running=running, widths=[1, 3, 2])
    assert torch.autograd.gradcheck(distances, (statistics.requires_grad_(),))


def test_what_enters_each_layer_is_measured():
    network, x = mixed_network(), some_images()
    observed = ObservedNetwork(network, statistics=True)
    with torch.no_grad():
        statistics = observed(x).statistics
        entering = [network[:index](x).numpy() for index in (1, 5)]
    assert list(observed.layers) == ["1", "5"]
    widths = [entered.shape[1] for entered in entering]
    for (mean, variance), entered in zip(statistics.split(widths, dim=1), entering, strict=True):
        expected_mean, expected_variance = slow_statistics(entered)
        assert mean.tolist() == pytest.approx(expected_mean, rel=1e-12)
        assert variance.tolist() == pytest.approx(expected_variance, rel=1e-12)
    expected = [slow_distance(entered, network[index]) for entered, index in zip(entering, (1, 5), strict=True)]
    assert FeatureDistances(observed)(statistics).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_distance_is_zero_for_images_whose_statistics_the_layers_remember():
    network, x = mixed_network(), some_images()
    with torch.no_grad():
        for index in (1, 5):  # in order: what enters the second depends on the first
            mean, variance = slow_statistics(network[:index](x).numpy())
            network[index].running_mean.copy_(torch.tensor(mean, dtype=x.dtype))
            network[index].running_var.copy_(torch.tensor(variance, dtype=x.dtype))
        observed = ObservedNetwork(network, statistics=True)
        assert FeatureDistances(observed)(observed(x).statistics).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_gradients_reach_the_images_through_what_is_observed():
    observed = ObservedNetwork(mixed_network(), statistics=True)
    distances = FeatureDistances(observed)

    def total(x: Tensor) -> Tensor:
        seen = observed(x)
        return feature_statistics(distances(seen.statistics), 10.0) + seen.logits.square().sum()

    assert torch.autograd.gradcheck(total, (some_images(3).requires_grad_(),))


class UsedTwice(nn.Module):
    """One BN layer after each of two layers, and one that is used once."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.shared, self.last = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        for layer in (self.shared, self.last):
            layer.running_mean.copy_(torch.tensor([0.5, -0.25]))
            layer.running_var.copy_(torch.tensor([0.5, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.shared(self.convolution(self.shared(x)).relu()))


def test_a_layer_that_is_used_twice_is_compared_at_each_use():
    network, x = UsedTwice().double().eval(), some_images()
    observed = ObservedNetwork(network, statistics=True)
    distances = FeatureDistances(observed)
    for _ in range(2):  # the second pass adds nothing to the first
        with torch.no_grad():
            statistics = observed(x).statistics
            between = network.convolution(network.shared(x)).relu()
            entering = [x, between, network.shared(between)]
        assert list(observed.layers) == ["shared", "last"] and statistics.shape == (2, 6)
        first, second, last = (
            slow_distance(values.numpy(), layer)
            for values, layer in zip(entering, (network.shared, network.shared, network.last), strict=True)
        )
        assert distances(statistics).tolist() == pytest.approx([first + second, last], rel=1e-12)


@pytest.mark.parametrize("network", [mixed_network(), UsedTwice().double()], ids=["mixed", "used twice"])
def test_smoothed_statistics_are_those_of_a_moving_average(network):
    observed = ObservedNetwork(network, statistics=True)
    smoothed, plain = SmoothedDistances(observed, 0.75, some_images(1)), FeatureDistances(observed)
    smoothed.begin(None)
    statistics = observed(some_images()).statistics
    average = smoothed.compared(statistics)
    assert torch.equal(smoothed(average), plain(statistics))
    assert torch.equal(average, statistics)
    for _ in range(2):  # of one batch, so the average moves with what is compared last alone
        smoothed.begin(average)
        statistics = observed(2.0 * some_images()).statistics
        mixed = 0.75 * average + 0.25 * statistics
        average = smoothed.compared(statistics)
        torch.testing.assert_close(smoothed(average), plain(mixed), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_a_smoothed_batch_is_the_share_that_the_batch_has():
    layer = nn.BatchNorm2d(2)
    layer.running_mean.copy_(torch.tensor([1.0, -2.0]))
    observed, x = ObservedNetwork(layer, statistics=True), torch.randn(6, 2, 4, 4, requires_grad=True)
    smoothed, gradients = SmoothedDistances(observed, 0.9, torch.zeros(1, 2, 4, 4)), {}
    for name, average in (("plain", None), ("smoothed", observed(x).statistics)):
        smoothed.begin(None if average is None else average.detach())
        (gradients[name],) = torch.autograd.grad(smoothed(smoothed.compared(observed(x).statistics)).sum(), x)
    torch.testing.assert_close(gradients["smoothed"], 0.1 * gradients["plain"])


def test_another_average_does_not_make_compiled_code_compile_again():
    observed, compiled = ObservedNetwork(mixed_network().float(), statistics=True, before="4"), []
    smoothed = SmoothedDistances(observed, 0.9, some_images(1).float())

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    def smoothed_distances(x: Tensor) -> Tensor:
        return smoothed(smoothed.compared(observed(x).statistics))

    distances = torch.compile(smoothed_distances, backend=backend, dynamic=False)
    x, average = some_images().float(), None
    for _ in range(3):
        smoothed.begin(average)
        expected = smoothed_distances(x)
        torch.testing.assert_close(distances(x), expected, rtol=1e-3, atol=1e-3)
        average = smoothed.compared(observed(x).statistics) + 1.0
    assert len(compiled) == 1


def test_the_statistics_of_a_frozen_layer_of_torchvision_are_compared():
    frozen = FrozenBatchNorm2d(2)
    frozen.running_mean.copy_(torch.tensor([1.0, -2.0]))
    frozen.running_var.copy_(torch.tensor([0.5, 3.0]))
    x = torch.randn(6, 2, 5, 5)
    observed = ObservedNetwork(nn.Sequential(nn.Identity(), frozen), statistics=True)
    seen = observed(x)
    torch.testing.assert_close(seen.logits, frozen(x))
    assert list(observed.layers) == ["1"]
    assert FeatureDistances(observed)(seen.statistics).tolist() == pytest.approx(
        [slow_distance(x.numpy(), frozen)], rel=1e-5
    )
