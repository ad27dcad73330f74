"""Statistics of networks without batch normalization: which layers, which dimension, and what an inversion compares."""

import pytest
import torch
from torch import Tensor, nn

from raydream.losses.feature_statistics import FeatureDistances, feature_statistics
from raydream.networks.batch_norm import batch_norm_layers, keeps_statistics
from raydream.networks.gathered import adopt_statistics, by_channel, gather, keep_statistics, observable_layers
from raydream.networks.observed import ObservedNetwork
from tests.tiny import tiny_network
from tests.unnormalized import TinyConvNext, TinyViT, tiny_plain, tiny_unnormalized

IMAGES = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def entered(network: nn.Module, name: str, images: Tensor) -> Tensor:
    """What enters a layer, by a hook of its own."""
    seen: list[Tensor] = []
    hook = network.get_submodule(name).register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    network(images)
    hook.remove()
    return torch.cat(seen)


NETWORKS = {
    # the dimension of the channels in what enters each layer
    "vit": (TinyViT, {"norm_1": 2, "norm_2": 2, "norm": 1}),
    "convnext": (TinyConvNext, {"stem_norm": 1, "block_norm": 3, "group": 1, "head_norm": 1}),
    "plain": (tiny_plain, {"0": 1, "2": 1, "6": 1}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_statistics_are_those_of_all_but_the_channels(name):
    build, dimensions = NETWORKS[name]
    network = build().eval()
    found = gather(network, torch.split(IMAGES, [5, 7]))
    assert list(found) == [*dimensions] == [*observable_layers(network)]
    for layer, dimension in dimensions.items():
        values = entered(network, layer, IMAGES).double().movedim(dimension, 0).flatten(1)
        expected = torch.stack((values.mean(1), values.var(1, correction=0)))
        assert torch.allclose(found[layer].double(), expected, atol=1e-5), layer
    assert not keeps_statistics(network)


def test_a_map_as_wide_as_its_channels_is_read_by_the_kind_of_the_layer():
    square = torch.randn(3, 4, 4, 4)
    assert by_channel(nn.LayerNorm(4), square).shape == (48, 4)
    assert by_channel(TinyConvNext().stem_norm, square) is square
    assert by_channel(nn.GroupNorm(2, 4), square) is square and by_channel(nn.Conv2d(4, 4, 1), square) is square


def test_a_layer_used_twice_has_the_statistics_of_both_uses():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(3.0 * self.norm(x.flatten(1, 2)) + 1.0)

    network = Twice()
    values = entered(network, "norm", IMAGES).double().flatten(0, -2)
    found = gather(network, [IMAGES])["norm"].double()
    assert torch.allclose(found, torch.stack((values.mean(0), values.var(0, correction=0))), atol=1e-5)


def test_a_layer_that_does_not_run_keeps_none():
    network = TinyViT()
    network.unused = nn.LayerNorm(8)
    assert "unused" in observable_layers(network) and "unused" not in gather(network, [IMAGES])


@pytest.mark.parametrize("name", NETWORKS)
def test_an_inversion_compares_them_as_those_of_batch_normalization(name):
    network = tiny_unnormalized(NETWORKS[name][0])
    assert keeps_statistics(network) and [*batch_norm_layers(network)] == [*observable_layers(network)]
    observed = ObservedNetwork(network, statistics=True)
    distances = FeatureDistances(observed)
    same = distances(observed(IMAGES).statistics)
    assert same.shape == (len(observed.layers),) and float(same.max()) < 1e-2, "of the images they were gathered from"
    other = distances(observed(IMAGES * 2 + 1).statistics)
    expected = [
        sum(float((now - kept).norm()) for now, kept in zip(each, (layer.running_mean, layer.running_var), strict=True))
        for each, layer in zip(
            gather(observed.network, [IMAGES * 2 + 1]).values(), observed.layers.values(), strict=True
        )
    ]
    assert other.tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_the_gradient_of_the_term_is_its_slope(name):
    network = tiny_unnormalized(NETWORKS[name][0]).double()
    observed = ObservedNetwork(network, statistics=True)
    distances = FeatureDistances(observed)

    def term(images: Tensor) -> Tensor:
        return feature_statistics(distances(observed(images).statistics), 1.0)

    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(term, images.requires_grad_(), fast_mode=True)


def test_a_state_with_statistics_is_loaded_after_they_are_adopted():
    kept, fresh = tiny_unnormalized(TinyViT), TinyViT()
    adopt_statistics(fresh, kept.state_dict())
    fresh.load_state_dict(kept.state_dict())
    assert torch.equal(fresh.norm_1.running_var, kept.norm_1.running_var)
    before = [*fresh.state_dict()]
    adopt_statistics(fresh, TinyViT().state_dict())
    assert [*fresh.state_dict()] == before


def test_what_is_kept_is_a_copy():
    network, values = TinyViT(), torch.ones(2, 8)
    keep_statistics(network, {"norm": values})
    values.zero_()
    assert network.norm.running_mean.tolist() == [1.0] * 8 and "norm.running_var" in network.state_dict()


def test_batch_normalization_is_left_as_it_is():
    network = tiny_network()
    state = network.state_dict()
    adopt_statistics(network, state)
    assert [*network.state_dict()] == [*state]
    layer = next(each for each in network.modules() if isinstance(each, nn.BatchNorm2d))
    x = torch.zeros(2, 8, 4, 4)
    assert by_channel(layer, x) is x


@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_observed_in_compiled_code(name):
    observed = ObservedNetwork(tiny_unnormalized(NETWORKS[name][0]), statistics=True)
    expected = observed(IMAGES)
    compiled = torch.compile(observed, backend="eager", dynamic=False)(IMAGES)
    assert torch.allclose(compiled.statistics, expected.statistics, atol=1e-4)
