"""Fake-quantized networks: layers whose weights and inputs take few values, with step sizes that learn.

A value x becomes s * clamp(round(x / s), low, high): floating point that lies on an integer grid, so that an ordinary
forward pass computes what an integer one would. The step size s is a parameter whose gradient is LSQ's (Esser et al.
2020, eq. 3); each output channel of a weight has its own, and an input has one. Residual sums, activations, and biases
stay in floating point.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Bits = dict[str, tuple[int, int]]
"""bits of the weights and of the input of each quantized layer, by its name"""

FEWEST, MOST = 2, 8
"""bits that a weight or an input can have"""
SMALLEST_STEP = 1e-8
"""lower bound of step sizes"""
FURTHEST = 4.0
"""largest factor between a trained step size and the calibrated one"""


class _OnGrid(torch.autograd.Function):
    """s * clamp(round(x / s), low, high) with LSQ's gradients: straight through for x inside the grid, eq. 3 for s."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: Tensor, high: Tensor, rate: Tensor) -> Tensor:
        ctx.save_for_backward(x, step, low, high, rate)
        return torch.round(x / step).clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, step, low, high, rate = ctx.saved_tensors
        place = x / step
        inside = (place >= low) & (place <= high)
        whole = torch.round(place).clamp_(low, high)
        of_step = (gradient * torch.where(inside, whole - place, whole)).sum_to_size(step.shape)
        return gradient * inside, of_step * rate, None, None, None


class Quantizer(nn.Module):
    """Rounds a tensor to integer multiples of a step size.

    Args:
        bits: bits of the integers, `FEWEST` to `MOST`.
        channels: C of a weight [C,...], which has a step size for each; None for an input, which has one.

    Attributes:
        step: the learned step sizes, float32 [C] or [1], > 0; 1 until `calibrate` sets them.
        start: the calibrated step sizes, likewise. Training holds `step` within a factor of `FURTHEST` of them. LSQ's
            gradient grows with the grid's ends, and would occasionally move the step of an 8-bit input below zero in a
            single update, which ruins the network.
        low, high: the lowest and highest integer, float32 scalars with high - low = 2^bits - 1 and low <= 0 <= high.
    """

    start: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, bits: int, channels: int | None) -> None:
        super().__init__()
        if not FEWEST <= bits <= MOST:
            raise ValueError(f"{bits} bits: a quantizer has {FEWEST} to {MOST}")
        self.step = nn.Parameter(torch.ones(channels or 1))
        self._per_channel = channels is not None
        self.register_buffer("start", torch.ones(channels or 1))
        self.register_buffer("low", torch.tensor(-(2.0 ** (bits - 1))))
        self.register_buffer("high", torch.tensor(2.0 ** (bits - 1) - 1.0))

    @torch.no_grad()
    def calibrate(self, step: Tensor, low: int | None = None) -> None:
        """Set the step sizes, [C] or [1], and the lowest integer unless it is the signed one."""
        self.step.copy_(step.clamp_min(SMALLEST_STEP))
        self.start.copy_(self.step)
        if low is not None:
            levels = float(self.high - self.low)
            self.low.fill_(float(low))
            self.high.fill_(low + levels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest grid values, float32, in the shape of x."""
        if self.training:
            with torch.no_grad():
                self.step.copy_(self.step.clamp(self.start / FURTHEST, self.start * FURTHEST))
        step: Tensor = self.step
        values = x[0].numel()  # of one channel, or of one image
        # LSQ's rate, by which a step size moves as fast as a weight, relative to its size. Both bounds count, as a
        # grid may reach further down than up.
        rate = (values * torch.maximum(self.high, -self.low)).rsqrt()
        step = step.view(-1, *[1] * (x.dim() - 1)) if self._per_channel else step
        grid: Tensor = _OnGrid.apply(x.float(), step, self.low, self.high, rate)
        return grid


def _quantize_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    first, *others = inputs
    return (layer.get_submodule(INPUT)(first), *others)


INPUT = "input_quantizer"
"""name of the quantizer of a layer's input, as a submodule of it"""


def quantized(network: nn.Module, bits: Mapping[str, tuple[int, int]]) -> nn.Module:
    """Make layers of a network quantize their weights and inputs; changes and returns the network.

    Args:
        bits: bits by the name of a Conv2d or Linear layer.

    Raises:
        ValueError: it has no such layer, the layer is quantized already, or a number of bits is out of range.
    """
    device = next((parameter.device for parameter in network.parameters()), None)
    layers = dict(network.named_modules())
    for name, (of_weights, of_input) in bits.items():
        layer = layers.get(name)
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            raise ValueError(f"there is no convolution or linear layer {name!r}")
        if is_quantized(layer):
            raise ValueError(f"the layer {name!r} is quantized already")
        weights = Quantizer(of_weights, layer.weight.shape[0]).to(device)
        parametrize.register_parametrization(layer, "weight", weights, unsafe=True)
        layer.add_module(INPUT, Quantizer(of_input, None).to(device))
        layer.register_forward_pre_hook(_quantize_input)
    return network


def is_quantized(layer: nn.Module) -> bool:
    """Return whether a layer quantizes its weights and its input."""
    return isinstance(getattr(layer, INPUT, None), Quantizer)


def quantizers_of(network: nn.Module) -> dict[str, tuple[Quantizer, Quantizer]]:
    """Return the weight and input quantizers of each quantized layer, by its name."""
    return {
        name: (layer.parametrizations["weight"][0], layer.get_submodule(INPUT))
        for name, layer in network.named_modules()
        if is_quantized(layer)
    }


def float_weight(layer: nn.Module) -> Tensor:
    """Return the weight of a quantized layer before rounding."""
    weight: Tensor = layer.parametrizations["weight"].original  # type: ignore[index,union-attr]
    return weight


def bits_text(bits: Mapping[str, tuple[int, int]]) -> str:
    """Write bits as JSON, for a configuration's arguments."""
    return json.dumps({name: list(each) for name, each in bits.items()}, separators=(",", ":"))


def parse_bits(text: str) -> Bits:
    """Parse the JSON of `bits_text`. Raises ValueError for anything else."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("bits are a JSON object: {layer: [bits of weights, bits of inputs]}")
    bits: Bits = {}
    for name, each in found.items():
        if not (isinstance(each, list) and len(each) == 2 and all(type(count) is int for count in each)):
            raise ValueError(f"the bits of {name!r} are [of weights, of inputs], not {each!r}")
        bits[name] = (each[0], each[1])
    return bits
