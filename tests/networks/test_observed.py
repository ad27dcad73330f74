import copy
import weakref

import pytest
import torch
from torch import Tensor, nn

from raydream.applications.continual.widening import output_layer
from raydream.config import TeacherConfig
from raydream.errors import InputError
from raydream.evaluation.data_free import features as data_free_features
from raydream.networks.observed import ObservedNetwork, WithFeatures, frozen_copy, last_layer
from raydream.teachers.teacher import make_teacher
from tests.networks.known import mixed_network, some_images
from tests.tiny import WIDTH, tiny_network


def hooks_of(network: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules())


def test_observing_changes_no_output():
    network, x = mixed_network(), some_images()
    observed = ObservedNetwork(network, statistics=True)
    torch.testing.assert_close(observed(x).logits, network(x), rtol=1e-12, atol=1e-12)


def test_the_network_that_is_copied_stays_as_it_was():
    network = tiny_network().double()  # in train mode, with weights that take gradients
    before = copy.deepcopy(network.state_dict())
    observed = ObservedNetwork(network, statistics=True, before="8")
    observed(torch.randn(4, 1, 8, 8, dtype=torch.float64))
    assert hooks_of(network) == 0 and hooks_of(observed) == 9
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_a_copy_does_not_follow_its_network():
    network, x = mixed_network(), some_images()
    observed = ObservedNetwork(network, statistics=True)
    before = observed(x)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.mul_(2)
    again = observed(x)
    assert torch.equal(before.logits, again.logits)
    assert torch.equal(before.statistics, again.statistics)


def test_a_network_in_train_mode_is_observed_in_eval_mode():
    network, x = mixed_network().train(), some_images()
    observed = ObservedNetwork(network, statistics=True)
    torch.testing.assert_close(observed(x).logits, network.eval()(x), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(v, network.state_dict()[name]) for name, v in observed.network.state_dict().items())


def test_each_pass_has_statistics_of_its_own():
    observed = ObservedNetwork(mixed_network(), statistics=True)
    first, second = (observed(some_images(count)).statistics for count in (5, 3))
    fresh = ObservedNetwork(mixed_network(), statistics=True)(some_images(5)).statistics
    assert torch.equal(first, fresh) and not torch.equal(first, second)


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
    observed = ObservedNetwork(SometimesTwo(), statistics=True)
    x = torch.randn(3, 2, 4, 4)
    assert observed(x).statistics.shape == (2, 4)
    observed.network.both = torch.tensor(False)
    with pytest.raises(ValueError, match=r"not run.*: head$"):
        observed(x)


def test_layers_without_running_statistics_are_passed_over():
    network = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(2)).eval()
    observed = ObservedNetwork(network, statistics=True)
    assert list(observed.layers) == ["1"] and hooks_of(observed) == 1


def test_a_network_with_nothing_to_compare_with_is_refused():
    for network in (nn.Conv2d(1, 1, 3), nn.BatchNorm2d(2, track_running_stats=False)):
        with pytest.raises(ValueError, match="batch normalization"):
            ObservedNetwork(network, statistics=True)


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


@pytest.mark.parametrize("channels", [1, 3])
def test_activations_of_a_frozen_copy_lie_channels_last_from_the_first_convolution_on(channels):
    # A single channel lies in both orders at once, and torch then takes the other one.
    frozen = frozen_copy(nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    images = torch.randn(2, channels, 8, 8).contiguous(memory_format=torch.channels_last)
    assert frozen(images).is_contiguous(memory_format=torch.channels_last)


class Head(nn.Module):
    """A body of 6 channels on images [N,1,8,8], and a head of 10 outputs in one of the usual forms."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.pool, self.named = nn.AdaptiveAvgPool2d(1), kind == "linear, called by name"
        self.last: nn.Module = {
            "1x1 convolution": nn.Conv2d(6, 10, 1),
            "2x2 convolution": nn.Conv2d(6, 10, 2),
            "linear on pooled features": nn.Linear(6, 10),
        }.get(kind, nn.Linear(24, 10))
        if kind == "1x1 convolution with a depthwise one behind it":
            self.last = nn.Conv2d(6, 10, 1)
            self.pool = nn.Conv2d(10, 10, 2, groups=10)

    def entering(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if isinstance(self.last, nn.Conv2d):
            return x
        return self.pool(x).flatten(1) if self.last.in_features == 6 else x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entering(x)
        logits = self.last(input=x) if self.named else self.last(x)
        return self.pool(logits).flatten(1) if logits.dim() == 4 and logits.shape[2] > 1 else logits.flatten(1)


HEADS = {
    "1x1 convolution": 24,
    "2x2 convolution": 24,
    "1x1 convolution with a depthwise one behind it": 24,
    "linear on pooled features": 6,
    "linear on flattened features": 24,
    "linear, called by name": 24,
}
"""kinds of heads, and how many numbers enter each per image"""


@pytest.mark.parametrize("kind", HEADS)
def test_all_who_ask_see_the_same_enter_the_last_layer(kind):
    torch.manual_seed(0)
    network = Head(kind).eval()
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    teacher = make_teacher(network, TeacherConfig())
    x, before = teacher.normalization(images), last_layer(network, 10)
    with torch.no_grad():
        expected = network.entering(x).flatten(1)
        observed, (logits, features) = ObservedNetwork(network, before=before)(x), WithFeatures(network, before)(x)
        assert before == "last" and expected.shape == (3, HEADS[kind])
        for found in (observed.activations, features, data_free_features(teacher, images.numpy())):
            torch.testing.assert_close(found, expected)
        for found in (observed.logits, logits):
            torch.testing.assert_close(found, network(x))
    assert output_layer(network, 10) == before and observed.statistics is None
    assert hooks_of(network) == 0


def test_networks_without_a_last_layer_have_none():
    with pytest.raises(ValueError, match="no linear layer and no convolution with 7 outputs"):
        last_layer(tiny_network(), 7)
    with pytest.raises(InputError, match=r"teacher\.network = "):
        output_layer(tiny_network(), 7)


def test_features_of_a_network_without_a_last_layer_are_its_logits():
    doubled = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Unflatten(1, (10, 2)), nn.AvgPool1d(2), nn.Flatten())
    teacher, images = make_teacher(doubled, TeacherConfig()), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    assert torch.equal(data_free_features(teacher, images.numpy()), teacher.logits(images))


class Unused(nn.Module):
    """Defines its last layer and does not run it."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_a_last_layer_that_is_not_run_is_named():
    observed = ObservedNetwork(Unused(), before="unused")
    with pytest.raises(ValueError, match=r"the layer unused, .* is not run"):
        observed(torch.zeros(2, 4))


def test_statistics_and_activations_are_observed_in_one_pass():
    network, x = tiny_network(), torch.randn(4, 1, 8, 8)
    both = ObservedNetwork(network, statistics=True, before=last_layer(network, 10))(x)
    statistics = ObservedNetwork(network, statistics=True)(x)
    activations = ObservedNetwork(network, before=last_layer(network, 10))(x)
    assert statistics.activations is None and activations.statistics is None
    assert torch.equal(both.activations, activations.activations) and both.activations.shape == (4, 2 * WIDTH)
    assert torch.equal(both.statistics, statistics.statistics)


def test_a_pass_is_not_kept_until_the_next_one():
    observed = ObservedNetwork(tiny_network(), statistics=True, before=last_layer(tiny_network(), 10))
    activations = weakref.ref(observed(torch.randn(2, 1, 8, 8)).activations)
    assert activations() is None


def test_compiled_code_returns_nothing_but_what_was_observed():
    """Anything else would be kept, and take a gradient of its own: a copy of each layer's input in each update."""
    outputs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        outputs.extend(graph.graph.output_node().args[0])
        return graph

    observed = ObservedNetwork(tiny_network(), statistics=True, before="8")
    seen = torch.compile(lambda x: tuple(observed(x)), backend=backend)(torch.randn(4, 1, 8, 8))
    assert len(seen) == len(outputs) == 3
