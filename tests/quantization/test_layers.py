"""Which layers have how many bits, what that weighs, and which layers are sensitive."""

import pytest
import torch
from torch import nn

from raydream.quantization.layers import bits_by_layer, layers_in_order, packed_bytes
from raydream.quantization.ranges import observe
from raydream.quantization.sensitivity import sensitivities


class Backwards(nn.Module):
    """Defines its layers in another order than it runs them, one twice, and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 4)
        self.again = nn.Conv2d(4, 4, 1)
        self.stem = nn.Conv2d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(self.again(self.stem(x))).mean((2, 3)))


def test_layers_are_those_that_run_in_their_order():
    network = Backwards()
    assert layers_in_order(network, (1, 6, 6)) == ["stem", "again", "head"]
    assert not network.stem._forward_pre_hooks and network.training


@pytest.mark.parametrize(
    ("edges", "keep", "bits"),
    [
        (8, (), {"a": (8, 8), "b": (4, 6), "c": (8, 8)}),
        (2, (), {"a": (4, 6), "b": (4, 6), "c": (4, 6)}),
        (5, (), {"a": (5, 6), "b": (4, 6), "c": (5, 6)}),
        (8, ("a",), {"b": (4, 6), "c": (8, 8)}),
        (8, ("b", "c"), {"a": (8, 8)}),
    ],
)
def test_first_and_last_have_more_bits_and_what_is_kept_has_none(edges, keep, bits):
    assert bits_by_layer(["a", "b", "c"], 4, 6, edges, keep) == bits


def test_packed_bytes_count_every_number_once():
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    numbers = (4 * 2 * 9 + 4) + 4 * 4 + (16 * 3 + 3)
    assert packed_bytes(network, {}) == 4 * numbers
    # 4 bits for each weight of the convolution, and 32 for each of its 4 steps and its input's.
    assert packed_bytes(network, {"0": (4, 4)}) == 4 * (numbers - 72) + 36 + 4 * 5
    assert packed_bytes(network, {"0": (3, 4)}) == 4 * (numbers - 72) + 27 + 4 * 5


def test_the_layer_whose_grid_is_coarsest_is_the_most_sensitive():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4)).eval()
    with torch.no_grad():
        network[4].weight.mul_(20.0)
    bits = {"0": (8, 8), "2": (2, 2), "4": (8, 8)}
    batches = [torch.randn(16, 1, 8, 8), torch.randn(9, 1, 8, 8)]
    done: list[int] = []
    seen = observe(network, bits, lambda: batches)
    found = sensitivities(network, bits, seen, "mse", lambda: batches, done.append)
    assert done == [1, 2, 3] and found[0].layer == "2" and found[0].divergence > 10 * found[1].divergence
    assert [each.divergence for each in found] == sorted((each.divergence for each in found), reverse=True)
    assert found[0].weights == 8 * 8 * 9 and (found[0].weight_bits, found[0].input_bits) == (2, 2)
    assert 0 <= found[0].agreement < found[-1].agreement <= 1
