import math

import numpy as np
import pytest
import torch
from torch import nn

from raydream.losses.dafl import FeatureNetwork, activation, information_entropy, one_hot
from tests.tiny import tiny_network


def some_logits() -> torch.Tensor:
    return 3.0 * torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_one_hot_is_minus_the_log_of_the_largest_probability():
    probabilities = np.exp(some_logits().numpy())
    probabilities /= probabilities.sum(1, keepdims=True)
    assert one_hot(some_logits()).item() == pytest.approx(-np.log(probabilities.max(1)).mean(), rel=1e-12)


def test_activation_is_minus_the_mean_size_of_all_values():
    values = np.random.default_rng(0).standard_normal((5, 7))
    expected = -math.fsum(abs(value) for row in values.tolist() for value in row) / 35
    assert activation(torch.from_numpy(values)).item() == pytest.approx(expected, rel=1e-12)


def test_information_entropy_is_lowest_where_all_classes_are_alike_and_0_for_a_single_one():
    even, single = torch.full((5,), 0.2, dtype=torch.float64), torch.eye(5, dtype=torch.float64)[2]
    uneven = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert information_entropy(even).item() == pytest.approx(-math.log(5), rel=1e-12)
    assert information_entropy(single).item() == 0.0
    assert information_entropy(uneven).item() == pytest.approx(-1.5 * math.log(2), rel=1e-12)


@pytest.mark.parametrize(
    "loss", [one_hot, activation, lambda logits: information_entropy(logits.softmax(1).mean(0))], ids=["o", "a", "e"]
)
def test_gradients_are_those_of_differences(loss):
    assert torch.autograd.gradcheck(loss, some_logits().requires_grad_())


def test_the_gradient_of_one_hot_does_not_pass_through_the_answers():
    logits = some_logits().requires_grad_()
    (found,) = torch.autograd.grad(one_hot(logits), logits)
    answers = nn.functional.one_hot(logits.argmax(1), 4)
    assert torch.allclose(found, (logits.softmax(1) - answers) / 6)


def test_a_feature_network_tells_what_enters_its_last_layer():
    network, images = tiny_network().eval(), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits, activations = FeatureNetwork(network, 10)(images)
    with torch.no_grad():
        expected = network[:-1](images)
    assert torch.allclose(activations, expected, atol=1e-6)
    assert torch.allclose(logits, network[-1](expected), atol=1e-5)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_convolution_may_be_the_last_layer():
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 10, 1), nn.Flatten())
    logits, activations = FeatureNetwork(network, 10)(torch.rand(2, 1, 8, 8))
    assert logits.shape == (2, 10) and activations.shape == (2, 6)


def test_networks_without_such_a_layer_are_refused():
    with pytest.raises(ValueError, match="no linear layer and no convolution with 7 outputs"):
        FeatureNetwork(tiny_network(), 7)

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(ValueError, match="is not run"):
        FeatureNetwork(Unused(), 5)(torch.zeros(2, 4))
