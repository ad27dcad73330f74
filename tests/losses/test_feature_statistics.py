import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from raydream.losses.feature_statistics import (
    ObservedNetwork,
    SmoothedNetwork,
    batch_norm_layers,
    feature_distance,
    feature_statistics,
    frozen_copy,
    one_pass_statistics,
)
from raydream.losses.feature_statistics import batch_statistics as statistics_around
from tests.tiny import tiny_network

LAYOUTS = {
    "[N,C]": ((7, 3), torch.contiguous_format),
    "[N,C,L]": ((4, 3, 5), torch.contiguous_format),
    "[N,C,H,W]": ((4, 3, 5, 6), torch.contiguous_format),
    "[N,C,H,W], channels last": ((4, 3, 5, 6), torch.channels_last),
    "[N,C,D,H,W]": ((4, 3, 2, 5, 3), torch.contiguous_format),
    "[N,C,D,H,W], channels last": ((4, 3, 2, 5, 3), torch.channels_last_3d),
    "one image": ((1, 3, 5, 6), torch.channels_last),
    "one value": ((1, 3, 1, 1), torch.contiguous_format),
}
HALF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""types of half the width, and the share of a value by which rounding to them may change it"""


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


def some_activations(shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype) -> Tensor:
    """Channels of different means and spreads."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    channels = torch.arange(1.0, shape[1] + 1).view(1, -1, *[1] * (len(shape) - 2))
    return (x * channels - 2.0 * channels).to(dtype).contiguous(memory_format=layout)


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """As it is uncompiled, where it does not matter what the means are expected around."""
    return statistics_around(x, torch.full((x.shape[1],), math.nan))


def plain_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance in float64, by torch.var_mean, which autograd knows how to go back through."""
    variance, mean = torch.var_mean(x.double(), dim=[0, *range(2, x.dim())], correction=0)
    return mean, variance


@pytest.mark.parametrize("shape", [(7, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_statistics_equal_a_slow_reference(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    mean, variance = batch_statistics(torch.from_numpy(x))
    expected_mean, expected_variance = slow_statistics(x)
    assert mean.tolist() == pytest.approx(expected_mean, rel=1e-12, abs=1e-14)
    assert variance.tolist() == pytest.approx(expected_variance, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_equal_those_of_var_mean_in_every_layout_and_precision(layout, dtype):
    x = some_activations(*LAYOUTS[layout], dtype)
    found, expected = batch_statistics(x), plain_statistics(x)
    kind = torch.float64 if dtype == torch.float64 else torch.float32  # no half is good enough for a variance
    accuracy = 1e-12 if dtype == torch.float64 else 1e-5
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == kind and mine.shape == (3,)
        torch.testing.assert_close(mine.double(), theirs, rtol=accuracy, atol=accuracy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_the_statistics_equal_those_of_var_mean(layout, dtype):
    x = some_activations(*LAYOUTS[layout], dtype).requires_grad_()
    weights = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for statistics in (batch_statistics, plain_statistics):
        mean, variance = statistics(x)
        (gradient,) = torch.autograd.grad((weights[0] * mean + weights[1] * variance).sum(), x)
        gradients.append(gradient)
    assert gradients[0].dtype == dtype
    accuracy = 1e-12 if dtype == torch.float64 else 2 * HALF.get(dtype, 1e-6)
    largest = gradients[1].double().abs().max().item()
    torch.testing.assert_close(*(g.double() for g in gradients), rtol=accuracy, atol=accuracy * largest)


@pytest.mark.parametrize("shape", [(5, 2), (2, 3, 4, 2), (2, 2, 2, 3, 2)])
def test_gradients_of_the_statistics_are_right(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(batch_statistics, (x.requires_grad_(),))
    if x.dim() == 4:
        last = x.detach().contiguous(memory_format=torch.channels_last)
        assert torch.autograd.gradcheck(batch_statistics, (last.requires_grad_(),))


def test_statistics_of_a_view_that_is_contiguous_in_no_layout():
    whole = torch.randn(6, 9, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    views = {
        "transposed": whole.permute(3, 1, 0, 2),
        "cut out": whole[:, ::2, 1:-1, ::2],
        "expanded": whole[:, :1].expand(-1, 4, -1, -1),
        "mirrored": whole.flip(3).transpose(0, 1),
    }
    for name, x in views.items():
        for mine, theirs in zip(batch_statistics(x), plain_statistics(x), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_variances_survive_a_mean_far_from_zero(layout):
    # E[x^2] - E[x]^2 would leave nothing: fp32 has 7 digits, and the mean's square is 10^6 variances.
    x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(4)) + 1000.0
    x = x.contiguous(memory_format=layout)
    for mine, theirs in zip(batch_statistics(x), plain_statistics(x), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("far", [30.0, 1e3, 1e4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_nearly_constant_channels_of_a_whole_batch_have_their_variances_and_gradients(layout, far):
    x = torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    x = (x + torch.tensor([0.0, far, -far]).view(1, -1, 1, 1)).contiguous(memory_format=layout).requires_grad_()
    for mine, theirs in zip(batch_statistics(x), plain_statistics(x), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-3, atol=1e-6)
    gradients = [torch.autograd.grad(s(x)[1].sum(), x)[0].double() for s in (batch_statistics, plain_statistics)]
    # x itself is rounded to far * 2^-24, and so is what is left of it beside the mean.
    torch.testing.assert_close(*gradients, rtol=0.0, atol=far * 2**-22 * 2 / 262144)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_statistics_of_a_whole_batch_of_the_papers_size_are_accurate(layout, dtype):
    x = torch.randn(256, 2, 32, 32, generator=torch.Generator().manual_seed(5)) * 0.3 + 0.5
    x = x.to(dtype).contiguous(memory_format=layout)
    for mine, theirs in zip(batch_statistics(x), plain_statistics(x), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize(("off", "accuracy"), [(0.0, 1e-4), (2.0, 1e-4), (20.0, 1e-2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_sums_are_accurate_enough_unless_the_means_are_far_from_where_they_are_expected(dtype, off, accuracy):
    x = torch.randn(256, 2, 32, 32, generator=torch.Generator().manual_seed(5)) * 0.5 + 3.0
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    mean, variance = one_pass_statistics(x, torch.full((2,), 3.0 - off * 0.5))
    for mine, theirs in zip((mean, variance), plain_statistics(x), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), theirs, rtol=accuracy, atol=0.0)


@pytest.mark.parametrize("shape", [(5, 2), (2, 3, 4, 2), (2, 2, 2, 3, 2)])
def test_two_sums_and_their_gradients_are_right(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    around = torch.randn(shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for mine, theirs in zip(one_pass_statistics(x, around), plain_statistics(x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: one_pass_statistics(x, around), (x,))


def test_compiled_statistics_are_those_of_two_sums():
    x, around = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(6)) + 50.0, torch.zeros(3)
    compiled = torch.compile(statistics_around, backend="aot_eager", dynamic=False)(x, around)
    for mine, theirs, eager in zip(compiled, one_pass_statistics(x, around), statistics_around(x, around), strict=True):
        assert torch.equal(mine, theirs)
        torch.testing.assert_close(mine, eager, rtol=1e-2, atol=0.0)
    assert not torch.equal(compiled[1], statistics_around(x, around)[1])  # else this shows nothing


def test_a_value_that_is_no_number_spoils_its_own_channel_alone():
    x = some_activations((4, 3, 5, 6), torch.channels_last, torch.float32)
    x[2, 1, 3, 3] = math.nan
    for statistic in batch_statistics(x):
        assert statistic.isfinite().tolist() == [True, False, True]


def test_statistics_leave_what_they_look_at_as_it_is():
    x = some_activations((4, 3, 5, 6), torch.channels_last, torch.bfloat16)
    kept = x.clone()
    batch_statistics(x)
    assert torch.equal(x, kept)


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


def test_what_enters_each_layer_is_measured():
    network, x = mixed_network(), some_images()
    observed = ObservedNetwork(network)
    with torch.no_grad():
        _, statistics = observed(x)
        entering = [network[:index](x).numpy() for index in (1, 5)]
    assert observed.names == ["1", "5"]
    for (mean, variance), entered in zip(statistics, entering, strict=True):
        expected_mean, expected_variance = slow_statistics(entered)
        assert mean.tolist() == pytest.approx(expected_mean, rel=1e-12)
        assert variance.tolist() == pytest.approx(expected_variance, rel=1e-12)
    expected = [slow_distance(entered, network[index]) for entered, index in zip(entering, (1, 5), strict=True)]
    assert observed.distances(statistics).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_distance_is_zero_for_images_whose_statistics_the_layers_remember():
    network, x = mixed_network(), some_images()
    with torch.no_grad():
        for index in (1, 5):  # in order: what enters the second depends on the first
            mean, variance = slow_statistics(network[:index](x).numpy())
            network[index].running_mean.copy_(torch.tensor(mean, dtype=x.dtype))
            network[index].running_var.copy_(torch.tensor(variance, dtype=x.dtype))
        observed = ObservedNetwork(network)
        assert observed.distances(observed(x)[1]).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_gradients_reach_the_images_through_what_is_observed():
    observed = ObservedNetwork(mixed_network())

    def total(x: Tensor) -> Tensor:
        logits, statistics = observed(x)
        return feature_statistics(observed.distances(statistics), 10.0) + logits.square().sum()

    assert torch.autograd.gradcheck(total, (some_images(3).requires_grad_(),))


def test_observing_changes_no_output():
    network, x = mixed_network(), some_images()
    observed = ObservedNetwork(network)
    torch.testing.assert_close(observed(x)[0], network(x), rtol=1e-12, atol=1e-12)


def test_the_network_that_is_copied_stays_as_it_was():
    network = tiny_network().double()  # in train mode, with weights that take gradients
    before = copy.deepcopy(network.state_dict())
    observed = ObservedNetwork(network)
    observed(torch.randn(4, 1, 8, 8, dtype=torch.float64))
    assert hooks_of(network) == 0 and hooks_of(observed) == 8
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_a_copy_does_not_follow_its_network():
    network, x = mixed_network(), some_images()
    observed = ObservedNetwork(network)
    logits, statistics = observed(x)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.mul_(2)
    again_logits, again = observed(x)
    assert torch.equal(logits, again_logits)
    assert torch.equal(observed.distances(statistics), observed.distances(again))


def test_a_network_in_train_mode_is_observed_in_eval_mode():
    network, x = mixed_network().train(), some_images()
    observed = ObservedNetwork(network)
    logits, _ = observed(x)
    torch.testing.assert_close(logits, network.eval()(x), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(v, network.state_dict()[name]) for name, v in observed.network.state_dict().items())


def test_each_pass_has_statistics_of_its_own():
    observed = ObservedNetwork(mixed_network())
    first, second = observed(some_images(5))[1], observed(some_images(3))[1]
    fresh = ObservedNetwork(mixed_network())(some_images(5))[1]
    for (mean, variance), (expected_mean, expected_variance) in zip(first, fresh, strict=True):
        assert torch.equal(mean, expected_mean) and torch.equal(variance, expected_variance)
    assert not torch.equal(first[0][0], second[0][0])


class SometimesTwo(nn.Module):
    """Runs its second head only where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.both = torch.tensor(True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(x) if self.both else x


def test_a_layer_that_is_not_run_is_named_even_if_it_ran_before():
    observed = ObservedNetwork(SometimesTwo())
    x = torch.randn(3, 2, 4, 4)
    assert len(observed(x)[1]) == 2
    observed.network.both = torch.tensor(False)
    with pytest.raises(ValueError, match=r"not run.*: head$"):
        observed(x)


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
    observed = ObservedNetwork(network)
    for _ in range(2):  # the second pass adds nothing to the first
        with torch.no_grad():
            _, statistics = observed(x)
            between = network.convolution(network.shared(x)).relu()
            entering = [x, between, network.shared(between)]
        assert observed.names == ["shared", "last"] and len(statistics) == 3
        first, second, last = (
            slow_distance(values.numpy(), layer)
            for values, layer in zip(entering, (network.shared, network.shared, network.last), strict=True)
        )
        assert observed.distances(statistics).tolist() == pytest.approx([first + second, last], rel=1e-12)


@pytest.mark.parametrize("network", [mixed_network(), UsedTwice().double()], ids=["mixed", "used twice"])
def test_smoothed_statistics_are_those_of_a_moving_average(network):
    smoothed, plain = SmoothedNetwork(network, 0.75, some_images(1)), ObservedNetwork(network)
    smoothed.begin(None)
    statistics = plain(some_images())[1]
    assert torch.equal(smoothed.distances(smoothed(some_images())[1]), plain.distances(statistics))
    average = smoothed.compared
    assert torch.equal(average, torch.stack([torch.cat([pair[part] for pair in statistics]) for part in (0, 1)]))
    for _ in range(2):  # of one batch, so the average moves with what is compared last alone
        smoothed.begin(average)
        statistics = plain(2.0 * some_images())[1]
        widths = [len(mean) for mean, _ in statistics]
        mixed = [
            (0.75 * mean + 0.25 * new_mean, 0.75 * variance + 0.25 * new_variance)
            for mean, variance, (new_mean, new_variance) in zip(
                average[0].split(widths), average[1].split(widths), statistics, strict=True
            )
        ]
        torch.testing.assert_close(smoothed.distances(statistics), plain.distances(mixed), rtol=1e-12, atol=1e-12)
        average = smoothed.compared


def test_the_gradient_of_a_smoothed_batch_is_the_share_that_the_batch_has():
    layer = nn.BatchNorm2d(2)
    layer.running_mean.copy_(torch.tensor([1.0, -2.0]))
    smoothed, x = SmoothedNetwork(layer, 0.9, torch.zeros(1, 2, 4, 4)), torch.randn(6, 2, 4, 4, requires_grad=True)
    gradients = {}
    for name, average in (("plain", None), ("smoothed", smoothed(x)[1])):
        smoothed.begin(None if average is None else torch.stack([average[0][0], average[0][1]]).detach())
        (gradients[name],) = torch.autograd.grad(smoothed.distances(smoothed(x)[1]).sum(), x)
    torch.testing.assert_close(gradients["smoothed"], 0.1 * gradients["plain"])


def test_another_average_does_not_make_compiled_code_compile_again():
    smoothed, compiled = SmoothedNetwork(mixed_network().float(), 0.9, some_images(1).float()), []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    distances = torch.compile(lambda x: smoothed.distances(smoothed(x)[1]), backend=backend, dynamic=False)
    x, average = some_images().float(), None
    for _ in range(3):
        smoothed.begin(average)
        expected = smoothed.distances(smoothed(x)[1])
        torch.testing.assert_close(distances(x), expected, rtol=1e-3, atol=1e-3)
        average = smoothed.compared + 1.0
    assert len(compiled) == 1


def test_layers_without_running_statistics_are_passed_over():
    network = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(2)).eval()
    observed = ObservedNetwork(network)
    assert observed.names == ["1"] and hooks_of(observed) == 1


def test_a_network_with_nothing_to_compare_with_is_refused():
    for network in (nn.Conv2d(1, 1, 3), nn.BatchNorm2d(2, track_running_stats=False)):
        with pytest.raises(ValueError, match="batch normalisation"):
            ObservedNetwork(network)


def test_layers_are_listed_in_the_order_of_their_definition():
    names = list(batch_norm_layers(tiny_network()))
    assert names == ["1", "3.bn1", "3.bn2", "4.bn1", "4.bn2", "4.shortcut.1", "5.bn1", "5.bn2"]


def test_layers_of_every_kind_count_and_other_normalisations_do_not():
    layers = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2), FrozenBatchNorm2d(2)]
    others = [nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.InstanceNorm2d(2), nn.Conv2d(2, 2, 1)]
    found = batch_norm_layers(nn.Sequential(*others, *layers))
    assert list(found) == ["4", "5", "6", "7", "8"] and list(found.values()) == layers


def test_the_statistics_of_a_frozen_layer_of_torchvision_are_compared():
    frozen = FrozenBatchNorm2d(2)
    frozen.running_mean.copy_(torch.tensor([1.0, -2.0]))
    frozen.running_var.copy_(torch.tensor([0.5, 3.0]))
    x = torch.randn(6, 2, 5, 5)
    observed = ObservedNetwork(nn.Sequential(nn.Identity(), frozen))
    logits, statistics = observed(x)
    torch.testing.assert_close(logits, frozen(x))
    assert observed.names == ["1"]
    assert observed.distances(statistics).tolist() == pytest.approx([slow_distance(x.numpy(), frozen)], rel=1e-5)


def test_a_frozen_copy_shares_nothing_and_lets_gradients_through_to_the_images():
    network = tiny_network()
    frozen = frozen_copy(network)
    theirs = {value.data_ptr() for value in network.state_dict().values()}
    assert not theirs & {value.data_ptr() for value in frozen.state_dict().values()}
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in frozen.state_dict().items())
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    frozen(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert frozen[3].conv1.weight.is_contiguous(memory_format=torch.channels_last)
