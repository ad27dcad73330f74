import math

import numpy as np
import pytest
import torch
from torch import nn

from raydream.losses.dafl import activation, information_entropy, one_hot


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
