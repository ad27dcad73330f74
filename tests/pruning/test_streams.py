"""Channels that go together: real removal equals masking, in networks of all kinds."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from raydream.evaluation.latency import filters_of, flops_of
from raydream.networks import build_network
from raydream.networks.activations import activation_width
from raydream.networks.pruned import (
    SelectedShortcut,
    parse_widths,
    resize,
    resized,
    widths_of,
    widths_text,
    with_selected_shortcuts,
)
from raydream.networks.resnet import PaddedShortcut
from raydream.pruning import costs
from raydream.pruning.streams import find_streams, follow, masked, remove


def flat_network() -> nn.Module:
    """Without BN layers, and with linear layers that take a channel at several positions."""
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3, 1, 1), nn.ReLU(), nn.Conv2d(12, 10, 3, 2, 1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(160, 20), nn.ReLU(), nn.Linear(20, 10)),
    )


def dense_network() -> nn.Module:
    """Densely connected, at the smallest size: streams that pass through several concatenations."""
    return torchvision.models.DenseNet(
        growth_rate=4, block_config=(2, 2), num_init_features=8, bn_size=2, num_classes=10
    )


class Swish(nn.Module):
    """A learned activation as a user may write it; with parameters of odd shapes, for all channels or for each."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.beta, self.scale = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x * torch.sigmoid(self.beta * x)


def activated_network() -> nn.Module:
    """With learned activations of all kinds, one of them twice, behind convolutions, BN and linear layers."""
    shared = nn.PReLU()
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3, 1, 1), nn.BatchNorm2d(12), nn.PReLU(12), nn.Conv2d(12, 10, 3, 2, 1), shared),
        *(nn.Conv2d(10, 9, 3, 1, 1), Swish((1, 9, 1, 1)), nn.Conv2d(9, 8, 3, 1, 1), Swish((8, 1, 1))),
        *(nn.Conv2d(8, 8, 3, 1, 1, groups=8), Swish(), shared, nn.Conv2d(8, 6, 3, 1, 1), nn.Flatten()),
        *(nn.Linear(96, 20), nn.PReLU(20), nn.Linear(20, 10)),
    )


NETWORKS = {
    # name: (arguments, shape of the images)
    "digits": ({"width": 8}, (1, 8, 8)),
    "cifar_resnet20": ({}, (3, 32, 32)),
    "cifar_vgg11_bn": ({}, (3, 32, 32)),
    "cifar_wrn16_1": ({}, (3, 32, 32)),
    "torchvision:mobilenet_v2": ({}, (3, 32, 32)),
    "tests.pruning.test_streams:flat_network": ({}, (3, 8, 8)),
    "tests.pruning.test_streams:dense_network": ({}, (3, 32, 32)),
    "tests.pruning.test_streams:activated_network": ({}, (3, 8, 8)),
}


def network_of(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """With weights and statistics that make every channel count."""
    arguments, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(name, arguments, shape[0], 10)
        for layer in network.modules():
            if isinstance(layer, nn.PReLU | Swish):
                for values in layer.parameters():
                    values.data.uniform_(-1.5, 1.5)
            if isinstance(layer, nn.BatchNorm2d):
                for values in (layer.weight.data, layer.running_var):
                    values.uniform_(0.5, 1.5)
                for values in (layer.bias.data, layer.running_mean):
                    values.uniform_(-0.5, 0.5)
    return network.eval().double().requires_grad_(False), shape


def some_removed(streams, seed: int = 0, share: float = 0.4):
    """So many channels of each stream, drawn."""
    random = torch.Generator().manual_seed(seed)
    drawn = {stream.name: torch.randperm(stream.channels, generator=random) for stream in streams}
    return {stream.name: drawn[stream.name][: int(share * stream.channels)].tolist() for stream in streams}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_removed_channels_are_masked_channels(name):
    network, shape = network_of(name)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before, streams = network(x), find_streams(network, shape)
    removed = some_removed(streams)
    expected = masked(network, streams, removed)(x)
    smaller = remove(network, streams, removed)
    torch.testing.assert_close(smaller(x), expected, rtol=1e-9, atol=1e-9)
    assert (expected - before).abs().max() > 1e-3, "the channels count"
    assert filters_of(smaller) < 0.75 * filters_of(network)
    assert flops_of(smaller.float(), shape) < 0.65 * flops_of(network.float(), shape)


@pytest.mark.parametrize(
    "name", ["digits", "cifar_resnet20", "cifar_wrn16_1", pytest.param("cifar_vgg11_bn", marks=pytest.mark.long)]
)
def test_a_channel_of_any_stream_can_go_alone(name):
    network, shape = network_of(name)
    x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for stream in find_streams(network, shape):
        removed = {stream.name: [stream.channels // 2]}
        torch.testing.assert_close(
            remove(network, [stream], removed)(x), masked(network, [stream], removed)(x), rtol=1e-9, atol=1e-9
        )


def test_all_filters_but_the_input_and_the_output_are_in_streams():
    network, shape = network_of("cifar_resnet20")
    streams = find_streams(network, shape)
    made = sorted(layer for stream in streams for layer in stream.layers("out") if "shortcut" not in layer)
    assert made == sorted(name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    assert sorted(stream.channels for stream in streams) == [16] * 4 + [32] * 4 + [64] * 4
    smaller = remove(network, streams, some_removed(streams))
    assert smaller.conv1.in_channels == 3 and smaller.linear.out_features == 10


def test_all_filters_of_a_network_of_learned_activations_are_in_streams():
    network, shape = network_of("tests.pruning.test_streams:activated_network")
    followed = follow(network, shape)
    made = {layer for stream in followed.streams for layer in stream.layers("out", "through")}
    assert made == {"0", "1", "2", "3", "5", "6", "7", "8", "9", "12", "14", "15"} and not followed.left_out


class Mixed(nn.Module):
    """A stream that can go, and four that cannot, each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.normed, self.norm = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3), nn.GroupNorm(2, 6)
        self.before, self.grouped = nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 1, groups=2)
        self.scaled, self.scale = nn.Conv2d(6, 6, 1), nn.Parameter(torch.ones(6, 1, 1))
        self.last = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.normed(self.free(x)))
        x = self.scale * self.scaled(self.grouped(self.before(x)).relu())
        return self.last(x.mean((2, 3)))


def test_streams_that_are_left_out_are_named_with_their_reasons():
    followed = follow(Mixed().eval(), (1, 8, 8))
    assert [stream.name for stream in followed.streams] == ["free"]
    assert followed.left_out == {
        "normed": "norm, a GroupNorm",
        "before": "grouped, a convolution in 2 groups",
        "grouped": "grouped, a convolution in 2 groups",
        "scaled": "scale, a parameter outside of any layer",
    }
    assert find_streams(Mixed().eval(), (1, 8, 8)) == followed.streams


@pytest.mark.parametrize(
    ("layer", "width"),
    [
        (nn.PReLU(), 1),
        (nn.PReLU(7), 7),
        (nn.PReLU(5, device="meta"), 5),
        (Swish((1, 5, 1, 1)).double(), 5),
        (Swish((3, 1, 1)), 3),
        (Swish(), 1),
        (Swish((1, 1, 1, 7)), None),  # by column, not by channel
        (nn.ReLU(), None),  # nothing learned
        (nn.GroupNorm(2, 4), None),
        (nn.LayerNorm(7), None),
        (nn.InstanceNorm2d(4, affine=True), None),
        (nn.BatchNorm2d(4), None),
        (nn.Conv2d(1, 1, 1), None),
        (nn.Linear(1, 1), None),
        (nn.Embedding(1, 4), None),
        (nn.Sequential(nn.PReLU(4)), None),
    ],
    ids=str,
)
def test_learned_activations_are_known_by_what_they_do(layer, width):
    state = torch.random.get_rng_state()
    assert activation_width(layer) == width
    assert torch.equal(torch.random.get_rng_state(), state), "the numbers that others draw are left alone"


def test_a_stream_keeps_a_channel():
    network, shape = network_of("digits")
    streams = find_streams(network, shape)
    name, channels = streams[0].name, streams[0].channels
    with pytest.raises(ValueError, match=f"all {channels} channels of {name}"):
        remove(network, streams, {name: range(channels)})


def test_grouped_convolutions_keep_their_channels():
    network = build_network("torchvision:resnext50_32x4d", {}, 3, 10)
    streams = find_streams(network, (3, 32, 32))
    grouped = {name for name, layer in network.named_modules() if getattr(layer, "groups", 1) > 1}
    assert grouped and streams
    assert not grouped & {part.layer for stream in streams for part in stream.parts}


def test_networks_are_left_as_they_were():
    network, shape = network_of("cifar_resnet20")
    state, modules = copy.deepcopy(network.state_dict()), [type(layer) for layer in network.modules()]
    streams = find_streams(network, shape)
    remove(network, streams, some_removed(streams))
    masked(network, streams, some_removed(streams))
    assert [type(layer) for layer in network.modules()] == modules and not network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("channels_in", "channels_out", "stride"), [(3, 5, 2), (4, 8, 2), (4, 4, 2), (2, 6, 1)])
def test_the_selected_shortcut_is_the_padded_one(channels_in, channels_out, stride):
    padded = PaddedShortcut(channels_in, channels_out, stride)
    selected = with_selected_shortcuts(nn.Sequential(padded))[0]
    assert isinstance(selected, SelectedShortcut)
    x = torch.randn(2, channels_in, 7, 8)
    assert torch.equal(selected(x), padded(x))


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_widths_and_weights_rebuild_a_network(name):
    network, shape = network_of(name)
    streams = find_streams(network, shape)
    smaller = remove(network, streams, some_removed(streams)).float()
    # Once more, from what is left.
    again = find_streams(smaller, shape)
    smaller = remove(smaller, again, some_removed(again, seed=1, share=0.2))
    arguments = {"of": name, "widths": widths_text(widths_of(smaller)), **NETWORKS[name][0]}
    rebuilt = build_network("pruned", arguments, shape[0], 10)
    assert widths_of(rebuilt) == widths_of(smaller) == parse_widths(arguments["widths"])
    assert all(torch.isfinite(value).all() for value in rebuilt.state_dict().values())
    rebuilt.load_state_dict(smaller.state_dict())
    x = torch.randn(2, *shape)
    assert torch.equal(rebuilt.eval()(x), smaller(x))


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ("{", "Expecting property name"),
        ("[]", "a JSON object"),
        ('{"0": [1]}', "channels in, channels out"),
        ('{"0": [1, 2.5]}', "channels in, channels out"),
        ('{"nowhere": [1, 2]}', "no layer 'nowhere'"),
        ('{"2": [4, 4]}', "no layer '2'"),
        ('{"0": [1, 0]}', "a layer of 1 to 0 channels"),
    ],
)
def test_bad_widths_are_told_in_one_sentence(widths, says):
    with pytest.raises(ValueError, match="arguments = ") as refused:
        build_network("pruned", {"of": "digits", "widths": widths}, 1, 10, "teacher")
    assert says in str(refused.value)


def test_fresh_weights_are_as_any_layers():
    torch.manual_seed(0)
    network = resized(build_network("digits", {"width": 8}, 1, 10), {"1": (5, 5), "0": (1, 5)})
    assert torch.equal(network[1].running_var, torch.ones(5)) and network[0].weight.std() > 0.1
    assert network[0].weight.requires_grad


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_by_layer_are_those_of_the_network(name):
    network, shape = network_of(name)
    network = with_selected_shortcuts(network.float())
    widths = widths_of(network)
    assert costs.total(costs.filters(network), widths) == filters_of(network)
    assert costs.total(costs.flops(network, shape), widths) == flops_of(network, shape)
    streams = find_streams(network, shape)
    smaller = remove(network, streams, some_removed(streams))
    assert costs.total(costs.flops(network, shape), widths_of(smaller)) == flops_of(smaller, shape)


def test_selected_shortcuts_are_where_the_network_is():
    network = with_selected_shortcuts(build_network("cifar_resnet20", {}, 3, 10).to("meta"))
    shortcuts = [layer for layer in network.modules() if isinstance(layer, SelectedShortcut)]
    assert len(shortcuts) == 2
    for shortcut in shortcuts:
        assert shortcut.sources.device.type == "meta"
        resize(shortcut, 5, 7)
        assert shortcut.sources.device.type == "meta" and len(shortcut.sources) == 7
