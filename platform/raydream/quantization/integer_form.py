"""A fake-quantized network with its weights as integers, which stores any number of bits in an ONNX file."""

import copy

import torch
import torch.ao.quantization.fx._decomposed  # which defines torch.ops.quantized_decomposed
from torch import Tensor, nn

from raydream.networks.quantized import INPUT, Quantizer, float_weight, quantizers_of

OPS = torch.ops.quantized_decomposed


class _Weight(nn.Module):
    """Replaces a weight's quantizer by its integers, which are dequantized at use."""

    def __init__(self, quantizer: Quantizer, weight: Tensor) -> None:
        super().__init__()
        step = quantizer.step.detach()
        whole = (weight.detach() / step.view(-1, *[1] * (weight.dim() - 1))).round()
        self.register_buffer("integers", whole.clamp(quantizer.low, quantizer.high).to(torch.int8))
        self.register_buffer("step", step.clone())
        self.register_buffer("zero", torch.zeros(len(weight), dtype=torch.int64))

    def forward(self, weight: Tensor) -> Tensor:
        found: Tensor = OPS.dequantize_per_channel(self.integers, self.step, self.zero, 0, -128, 127, torch.int8)
        return found


class _Input(nn.Module):
    """Replaces an input's quantizer: clips to its grid, with a byte for each value."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self._step = float(quantizer.step.detach())
        self._low, self._high = int(quantizer.low), int(quantizer.high)

    def forward(self, x: Tensor) -> Tensor:
        grid = (self._step, -self._low, 0, 255, torch.uint8)
        clipped = x.clamp(self._low * self._step, self._high * self._step)
        found: Tensor = OPS.dequantize_per_tensor(OPS.quantize_per_tensor(clipped, *grid), *grid)
        return found


def integer_form(network: nn.Module) -> nn.Module:
    """Copy a quantized network for `export_onnx` to write with a byte per weight, as QDQ; the copy cannot learn.

    It answers as the network does. Weights and inputs of fewer than 8 bits use some of a byte's values: ONNX Runtime's
    convolutions take no smaller type.
    """
    copied = copy.deepcopy(network).cpu().eval()
    for name, (weights, inputs) in quantizers_of(copied).items():
        layer = copied.get_submodule(name)
        layer.parametrizations["weight"][0] = _Weight(weights, float_weight(layer))  # type: ignore[index,assignment]
        layer.add_module(INPUT, _Input(inputs))
    return copied
