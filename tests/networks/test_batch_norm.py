import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from raydream.networks.batch_norm import (
    FrozenBatchNorm,
    batch_norm_layers,
    freeze_batch_norm,
    joined,
    moments,
    one_pass_statistics,
)
from tests.networks.known import slow_statistics
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


def some_activations(shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype) -> Tensor:
    """Channels of different means and spreads."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    channels = torch.arange(1.0, shape[1] + 1).view(1, -1, *[1] * (len(shape) - 2))
    return (x * channels - 2.0 * channels).to(dtype).contiguous(memory_format=layout)


def statistics_around(x: Tensor, around: Tensor) -> Tensor:
    """Of a single layer."""
    return joined([moments(x, around)])


def batch_statistics(x: Tensor) -> Tensor:
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


def test_layers_side_by_side_have_the_statistics_and_gradients_that_each_has_alone():
    random = torch.Generator().manual_seed(7)
    shapes = (5, 2), (2, 3, 4, 2), (4, 1, 3, 3)
    layers = [torch.randn(shape, dtype=torch.float64, generator=random).requires_grad_() for shape in shapes]
    weights = torch.randn(2, 6, dtype=torch.float64, generator=random)
    together = joined([moments(x, torch.zeros(x.shape[1])) for x in layers])
    apart = torch.cat([torch.stack(plain_statistics(x)) for x in layers], dim=1)
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad((weights * statistics).sum(), layers) for statistics in (together, apart))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_a_channel_far_from_zero_is_found_in_whichever_layer_it_is():
    near, far = (torch.randn(256, 2, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in (8, 9))
    far[:, 1] += 1e4
    means, variances = joined([moments(x, torch.zeros(2)) for x in (near, far)])
    expected = [torch.cat(parts) for parts in zip(*(plain_statistics(x) for x in (near, far)), strict=True)]
    torch.testing.assert_close(means.double(), expected[0], rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(variances.double(), expected[1], rtol=1e-3, atol=1e-6)


def some_layer(kind: type[nn.Module] = nn.BatchNorm2d, **settings: object) -> nn.Module:
    """A BN layer of three channels with everything that it can have."""
    layer, random = kind(3, **settings).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in layer.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(3, generator=random) + 0.5)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"eps": 0.1}], ids=["plain", "no weights", "eps"])
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "one value"])
def test_a_frozen_layer_is_the_layer_in_eval_mode(layout, settings, dtype):
    shape, order = LAYOUTS[layout]
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    layer = some_layer(kind, **settings).to(torch.float64 if dtype == torch.float64 else torch.float32)
    frozen = FrozenBatchNorm(layer)
    x = some_activations(shape, order, dtype).requires_grad_()
    found, expected = frozen(x), layer(x)
    assert found.dtype == expected.dtype and found.stride() == expected.stride()
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients = (torch.autograd.grad((weights * y).sum(), x)[0] for y in (found, expected))
    accuracy = HALF.get(dtype, 1e-6)
    torch.testing.assert_close(found, expected, rtol=accuracy, atol=accuracy)
    torch.testing.assert_close(*gradients, rtol=accuracy, atol=accuracy)


def test_a_frozen_layer_follows_the_weights_that_it_is_given():
    network, other = nn.Sequential(some_layer()), nn.Sequential(nn.BatchNorm2d(3)).eval()
    freeze_batch_norm(network)
    assert list(network.state_dict()) == list(other.state_dict())
    network.load_state_dict(other.state_dict())
    x = some_activations((4, 3, 5, 6), torch.channels_last, torch.float32)
    torch.testing.assert_close(network(x), other(x))


def test_layers_that_compute_something_else_stay_as_they_are():
    class Own(nn.BatchNorm2d):
        pass

    others = [Own(2), nn.SyncBatchNorm(2), FrozenBatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)]
    others.append(nn.BatchNorm2d(2))
    others[-1].register_forward_hook(lambda *_: None)
    network = nn.Sequential(*others, nn.Sequential(nn.BatchNorm2d(2)))
    freeze_batch_norm(network)
    assert list(network[:5]) == others and isinstance(network[5][0], FrozenBatchNorm)
    assert list(batch_norm_layers(network)) == ["0", "1", "2", "3", "4", "5.0"]


def test_a_layer_that_stands_in_several_places_stays_one_layer():
    layer = nn.BatchNorm2d(2)
    network = nn.Sequential(layer, nn.ReLU(), layer, nn.Sequential(layer))
    freeze_batch_norm(network)
    assert network[0] is network[2] is network[3][0] and isinstance(network[0], FrozenBatchNorm)


def test_statistics_leave_what_they_look_at_as_it_is():
    x = some_activations((4, 3, 5, 6), torch.channels_last, torch.bfloat16)
    kept = x.clone()
    batch_statistics(x)
    assert torch.equal(x, kept)


def test_statistics_do_not_depend_on_the_order_of_images_and_pixels():
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    expected = batch_statistics(x)
    torch.testing.assert_close(batch_statistics(x.flip(0).transpose(2, 3)), expected)


def test_layers_are_listed_in_the_order_of_their_definition():
    names = list(batch_norm_layers(tiny_network()))
    assert names == ["1", "3.bn1", "3.bn2", "4.bn1", "4.bn2", "4.shortcut.1", "5.bn1", "5.bn2"]


def test_layers_of_every_kind_count_and_other_normalizations_do_not():
    layers = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2), FrozenBatchNorm2d(2)]
    others = [nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.InstanceNorm2d(2), nn.Conv2d(2, 2, 1)]
    found = batch_norm_layers(nn.Sequential(*others, *layers))
    assert list(found) == ["4", "5", "6", "7", "8"] and list(found.values()) == layers
