"""Quantized layers: what they round to, LSQ's gradients against slow references, and how networks keep them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from raydream.config.network_names import QUANTIZED
from raydream.errors import InputError
from raydream.networks import build_network
from raydream.networks.quantized import (
    INPUT,
    Quantizer,
    bits_text,
    float_weight,
    is_quantized,
    parse_bits,
    quantized,
    quantizers_of,
)
from tests.tiny import tiny_network


def quantizer(bits: int, steps: list[float], low: int | None = None, channels: bool = False) -> Quantizer:
    made = Quantizer(bits, len(steps) if channels else None)
    made.calibrate(torch.tensor(steps), low)
    return made


def lsq(x: np.ndarray, upstream: np.ndarray, step: float, low: int, high: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Value by value: the rounded x, the gradient of x, and eq. 3's of the step, without LSQ's rate."""
    rounded, of_x, of_step = np.empty_like(x), np.empty_like(x), 0.0
    for at, value in np.ndenumerate(x):
        place = value / step
        if place < low:
            rounded[at], of_x[at], slope = low * step, 0.0, low
        elif place > high:
            rounded[at], of_x[at], slope = high * step, 0.0, high
        else:
            whole = float(round(place))
            rounded[at], of_x[at], slope = whole * step, upstream[at], whole - place
        of_step += upstream[at] * slope
    return rounded, of_x, of_step


@pytest.mark.parametrize(("bits", "low"), [(8, None), (4, None), (4, 0), (4, -3), (3, -7), (2, 0)])
def test_values_and_gradients_are_those_of_the_paper(bits, low):
    random = np.random.default_rng(bits)
    values, upstream, step = random.normal(0.0, 2.0, (3, 2, 4, 5)), random.normal(size=(3, 2, 4, 5)), 0.31
    made = quantizer(bits, [step], low)
    first, last = int(made.low), int(made.high)
    assert last - first == 2**bits - 1 and first <= 0 <= last

    x = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    grid = made(x)
    grid.backward(torch.tensor(upstream, dtype=torch.float32))

    rounded, of_x, of_step = lsq(values, upstream, step, first, last)
    rate = 1.0 / np.sqrt(values[0].size * max(last, -first))
    np.testing.assert_allclose(grid.detach(), rounded, atol=1e-5)
    np.testing.assert_allclose(x.grad, of_x, atol=1e-6)
    np.testing.assert_allclose(made.step.grad, [of_step * rate], rtol=1e-4)


def test_each_channel_of_a_weight_has_its_own_step():
    random, steps = np.random.default_rng(1), [0.05, 0.2, 0.7]
    values, upstream = random.normal(size=(3, 2, 3, 3)), random.normal(size=(3, 2, 3, 3))
    made = quantizer(4, steps, channels=True)
    x = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    made(x).backward(torch.tensor(upstream, dtype=torch.float32))
    expected = [lsq(values[c], upstream[c], step, -8, 7)[2] / np.sqrt(18 * 8) for c, step in enumerate(steps)]
    np.testing.assert_allclose(made.step.grad, expected, rtol=1e-4)


def test_torchs_own_learnable_kernel_agrees():
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    # In half a step beyond each end torch still lets the gradient of x through; the paper does not.
    beyond = ((x / 0.2 < -5) & (x / 0.2 > -5.6)) | ((x / 0.2 > 10) & (x / 0.2 < 10.6))
    x = torch.where(beyond, 0.0, x)
    made, ours, theirs = quantizer(4, [0.2], -5), x.clone().requires_grad_(), x.clone().requires_grad_()
    scale, zero_point = torch.tensor([0.2], requires_grad=True), torch.tensor([0.0])
    rate = 1.0 / np.sqrt(75 * 10)
    other = torch._fake_quantize_learnable_per_tensor_affine(theirs, scale, zero_point, -5, 10, rate)
    made(ours).square().sum().backward()
    other.square().sum().backward()
    torch.testing.assert_close(made(x), other)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(made.step.grad, scale.grad)


@pytest.mark.parametrize(("trained", "held"), [(-0.3, 0.05), (0.0, 0.05), (0.05, 0.05), (0.3, 0.3), (9.0, 0.8)])
def test_training_holds_a_step_near_the_calibrated_one(trained, held):
    made, x = quantizer(4, [0.2]), torch.randn(8, 3)
    made.step.data.fill_(trained)
    assert made(x).isfinite().all() and float(made.step.detach()) == pytest.approx(held)
    made(x).sum().backward()
    assert made.step.grad.isfinite().all()


def test_a_network_that_is_trained_far_too_fast_still_answers():
    network = quantized(tiny_network(), dict.fromkeys(("0", "8"), (8, 8)))
    for weights, inputs in quantizers_of(network).values():
        weights.calibrate(torch.full_like(weights.step, 0.01))
        inputs.calibrate(torch.tensor([0.02]), 0)
    optimizer = torch.optim.SGD(network.parameters(), 10.0)
    x = torch.randn(8, 1, 8, 8, requires_grad=True)
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    x.grad = None
    network(x).square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()  # type: ignore[attr-defined]


@pytest.mark.parametrize("bits", [-1, 0, 1, 9, 16])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match="2 to 8"):
        Quantizer(bits, None)


@pytest.mark.parametrize("bits", [2, 8])
def test_the_fewest_and_most_bits_are_possible(bits):
    assert len(quantizer(bits, [0.01])(torch.linspace(-9, 9, 5000)).unique()) == 2**bits


def test_a_quantized_layer_computes_with_both_on_their_grids():
    network = quantized(nn.Sequential(nn.Conv2d(2, 3, 3)), {"0": (4, 3)})
    ((weights, inputs),) = quantizers_of(network).values()
    weights.calibrate(torch.tensor([0.05, 0.06, 0.07]))
    inputs.calibrate(torch.tensor([0.4]), -2)
    x = torch.randn(2, 2, 6, 6)
    seen = inputs(x)
    assert set((seen / 0.4).round().unique().tolist()) <= set(range(-2, 6))
    expected = nn.functional.conv2d(seen, weights(float_weight(network[0])), network[0].bias)
    torch.testing.assert_close(network(x), expected)
    assert float_weight(network[0]).requires_grad and not torch.equal(network[0].weight, float_weight(network[0]))


@pytest.mark.parametrize(
    ("bits", "says"),
    [
        ({"none": (4, 4)}, "no convolution or linear layer 'none'"),
        ({"1": (4, 4)}, "no convolution or linear layer '1'"),
        ({"0": (4, 9)}, "9 bits"),
        ({"0": (1, 4)}, "1 bits"),
    ],
)
def test_layers_that_cannot_be_quantized_are_named(bits, says):
    with pytest.raises(ValueError, match=says):
        quantized(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), bits)


def test_no_layer_is_quantized_twice():
    network = quantized(nn.Sequential(nn.Linear(2, 3)), {"0": (4, 4)})
    with pytest.raises(ValueError, match="quantized already"):
        quantized(network, {"0": (4, 4)})


def test_copies_and_descriptions_answer_the_same():
    bits = {name: (4, 5) for name, layer in tiny_network().named_modules() if isinstance(layer, nn.Conv2d)}
    network = quantized(tiny_network(), bits).eval()
    for index, (weights, inputs) in enumerate(quantizers_of(network).values()):
        weights.calibrate(torch.full_like(weights.step, 0.03 + 0.01 * index))
        inputs.calibrate(torch.tensor([0.2]), -index)
    described = {"network": "digits", "bits": bits_text(bits), "width": 8}
    rebuilt = build_network(QUANTIZED, described, 1, 10).eval()
    rebuilt.load_state_dict(network.state_dict())
    x = torch.randn(4, 1, 8, 8)
    for other in (rebuilt, copy.deepcopy(network)):
        assert [name for name, layer in other.named_modules() if is_quantized(layer)] == list(bits)
        assert torch.equal(other(x), network(x))
    assert hasattr(network.get_submodule(next(iter(bits))), INPUT)


@pytest.mark.parametrize("text", ["[1]", "7", '{"a": [1]}', '{"a": [1, 2.5]}', '{"a": "W4A4"}', "{", '{"b": [4, 4]}'])
def test_a_description_of_something_else_is_refused_in_a_sentence(text):
    with pytest.raises(InputError, match="the factory says"):
        build_network(QUANTIZED, {"network": "digits", "bits": text}, 1, 10)


def test_bits_as_text_and_back():
    bits = {"features.0": (8, 8), "classifier": (4, 6)}
    assert parse_bits(bits_text(bits)) == bits
