import math

import numpy as np
import pytest
import torch
from torch import nn

from raydream.losses.feature_statistics import (
    FeatureObserver,
    batch_norm_layers,
    batch_statistics,
    feature_distance,
    feature_statistics,
)
from tests.tiny import tiny_network


def slow_statistics(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and biased variance of each channel, one number after the other."""
    means, variances = [], []
    for channel in range(x.shape[1]):
        values = [float(value) for value in np.moveaxis(x, 1, 0)[channel].reshape(-1)]
        means.append(math.fsum(values) / len(values))
        variances.append(math.fsum((value - means[-1]) ** 2 for value in values) / len(values))
    return means, variances


def slow_distance(x: np.ndarray, layer: nn.Module) -> float:
    """Eq. 5 for one layer."""
    mean, variance = slow_statistics(x)
    total = 0.0
    for seen, remembered in ((mean, layer.running_mean), (variance, layer.running_var)):
        total += math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(seen, remembered.tolist(), strict=True)))
    return total


def mixed_network() -> nn.Sequential:
    """A network with a BN layer of each kind, all with statistics of their own, in eval mode and float64."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4), nn.BatchNorm1d(4)
    ).double()
    for index in (1, 5):
        layer = network[index]
        layer.running_mean.copy_(torch.randn(layer.num_features))
        layer.running_var.copy_(torch.rand(layer.num_features) + 0.5)
        nn.init.uniform_(layer.weight)
    return network.eval()


def some_images(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def hooks_of(network: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules())


@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_statistics_equal_a_slow_reference(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    mean, variance = batch_statistics(torch.from_numpy(x))
    expected_mean, expected_variance = slow_statistics(x)
    assert mean.tolist() == pytest.approx(expected_mean, rel=1e-12, abs=1e-14)
    assert variance.tolist() == pytest.approx(expected_variance, rel=1e-12)


def test_statistics_do_not_depend_on_the_order_of_images_and_pixels():
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    expected = batch_statistics(x)
    torch.testing.assert_close(batch_statistics(x.flip(0).transpose(2, 3)), expected)


def test_distance_adds_the_two_norms_without_squaring_them():
    zeros = torch.zeros(2)
    assert feature_distance(torch.tensor([3.0, 4.0]), torch.tensor([5.0, 12.0]), zeros, zeros).item() == 18.0


def test_distance_is_zero_with_a_zero_gradient_where_statistics_agree():
    mean = torch.tensor([1.0, 2.0], requires_grad=True)
    variance = torch.tensor([0.5, 3.0], requires_grad=True)
    distance = feature_distance(mean, variance, mean.detach().clone(), variance.detach().clone())
    distance.backward()
    assert distance.item() == 0.0
    assert mean.grad.tolist() == variance.grad.tolist() == [0.0, 0.0]


def test_the_first_layer_weighs_as_told_and_the_others_once():
    distances = torch.tensor([2.0, 3.0, 5.0])
    assert [feature_statistics(distances, first).item() for first in (0.0, 1.0, 10.0)] == [8.0, 10.0, 28.0]


def test_gradients_of_the_distance_are_right():
    random = torch.Generator().manual_seed(0)
    statistics = [torch.randn(4, dtype=torch.float64, generator=random).requires_grad_() for _ in range(4)]
    assert torch.autograd.gradcheck(feature_distance, statistics)


def test_the_observer_measures_what_enters_each_layer():
    network, x = mixed_network(), some_images()
    with FeatureObserver(network) as observer, torch.no_grad():
        network(x)
        distances = observer.distances()
        entering = [network[:index](x).numpy() for index in (1, 5)]
    assert observer.names == ["1", "5"]
    expected = [slow_distance(entered, network[index]) for entered, index in zip(entering, (1, 5), strict=True)]
    assert distances.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_distance_is_zero_for_images_whose_statistics_the_layers_remember():
    network, x = mixed_network(), some_images()
    with torch.no_grad():
        for index in (1, 5):  # in order: what enters the second depends on the first
            mean, variance = slow_statistics(network[:index](x).numpy())
            network[index].running_mean.copy_(torch.tensor(mean, dtype=x.dtype))
            network[index].running_var.copy_(torch.tensor(variance, dtype=x.dtype))
        with FeatureObserver(network) as observer:
            network(x)
            assert observer.distances().tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_gradients_reach_the_images_through_the_observer():
    network = mixed_network()
    with FeatureObserver(network) as observer:

        def total(x: torch.Tensor) -> torch.Tensor:
            network(x)
            return feature_statistics(observer.distances(), 10.0)

        assert torch.autograd.gradcheck(total, (some_images(3).requires_grad_(),))


def test_observing_changes_neither_the_network_nor_its_outputs():
    network, x = mixed_network(), some_images()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = network(x)
    with FeatureObserver(network):
        observed = network(x)
    assert torch.equal(plain, observed)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_hooks_live_as_long_as_the_with_block():
    network = mixed_network()
    observer = FeatureObserver(network)
    assert hooks_of(network) == 0
    with observer:
        assert hooks_of(network) == 2
    assert hooks_of(network) == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_removed_when_the_block_raises(error):
    network = mixed_network()
    with pytest.raises(error), FeatureObserver(network):
        network(some_images())
        raise error
    assert hooks_of(network) == 0


def test_an_observer_can_be_entered_again():
    network, x = mixed_network(), some_images()
    observer = FeatureObserver(network)
    seen = []
    for _ in range(2):
        with observer, torch.no_grad():
            network(x)
            seen.append(observer.distances())
    assert torch.equal(*seen) and hooks_of(network) == 0


def test_each_pass_is_read_once():
    network = mixed_network()
    with FeatureObserver(network) as observer:
        network(some_images())
        observer.distances()
        with pytest.raises(ValueError):
            observer.distances()


def test_layers_without_running_statistics_are_passed_over():
    network = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(2)).eval()
    assert FeatureObserver(network).names == ["1"]


def test_a_network_with_nothing_to_compare_with_is_refused():
    for network in (nn.Conv2d(1, 1, 3), nn.BatchNorm2d(2, track_running_stats=False)):
        with pytest.raises(ValueError, match="batch normalisation"):
            FeatureObserver(network)


def test_layers_are_listed_in_the_order_of_their_definition():
    names = list(batch_norm_layers(tiny_network()))
    assert names == ["1", "3.bn1", "3.bn2", "4.bn1", "4.bn2", "4.shortcut.1", "5.bn1", "5.bn2"]
