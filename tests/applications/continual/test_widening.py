"""New outputs beside old ones."""

import pytest
import torch
from torch import nn

from raydream.applications.continual.widening import (
    build_widened,
    check_widening,
    output_layer,
    widened,
)
from raydream.config import TeacherConfig
from raydream.errors import InputError
from raydream.networks import build_network
from tests.tiny import tiny_network

IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def convolutional(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 10, 1), nn.ReLU(), nn.Conv2d(10, classes, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def patches(classes: int = 10) -> nn.Module:
    """Its last layer is a convolution of a large kernel."""
    return nn.Sequential(nn.Conv2d(1, 6, 1), nn.ReLU(), nn.Conv2d(6, classes, 3, 2, 1, padding_mode="circular"), Mean())


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


class Normalized(nn.Module):
    """Something follows the last layer that mixes the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x.flatten(1)).log_softmax(1)


@pytest.mark.parametrize("make", [tiny_network, convolutional, patches])
def test_old_outputs_stay_as_they_are_and_the_network_too(make):
    network = make().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    wide = widened(network, 10, 3, seed=1).eval()
    with torch.no_grad():
        one, other = network(IMAGES), wide(IMAGES)
    assert other.shape == (3, 13)
    torch.testing.assert_close(other[:, :10], one)
    assert other[:, 10:].std() > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    wide.get_submodule(output_layer(wide, 13)).weight.data.zero_()
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES), one)  # nothing is shared


def test_new_weights_follow_from_the_seed_and_leave_torchs_own_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    new = [widened(tiny_network(), 10, 3, seed)[-1].weight[10:] for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(new[0], new[1]) and not torch.equal(new[0], new[2])


def test_statistics_of_batch_normalization_are_taken_along():
    network = tiny_network()
    wide = widened(network, 10, 1, 0)
    assert torch.equal(wide[1].running_mean, network[1].running_mean) and wide[1].running_mean.abs().sum() > 0


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small", "cifar_resnet20"])
def test_networks_of_others_are_widened(name):
    config = TeacherConfig(
        network=name, input_shape=(3, 64, 64), mean=(0.5,) * 3, std=(0.5,) * 3, classes=10, checkpoint="weights"
    )
    network = build_network(name, {}, 3, 10).eval()
    check_widening(network, config)
    assert build_widened(config, 12).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 12)


@pytest.mark.parametrize("network", [Normalized(), nn.Sequential(nn.Flatten(), nn.Linear(64, 11))])
def test_networks_that_cannot_be_widened_are_refused(network):
    with pytest.raises(InputError, match=r"teacher.network = "):
        check_widening(network.eval(), TeacherConfig())
