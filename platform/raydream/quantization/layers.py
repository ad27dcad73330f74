"""Chooses the quantized layers of a network, and their bits."""

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

from raydream.networks.quantized import Bits

FLOAT_BITS = 32
"""bits of a floating-point number"""


def layers_in_order(network: nn.Module, input_shape: tuple[int, int, int]) -> list[str]:
    """Return the names of the convolutions and linear layers that run, in order of first use; changes nothing.

    Args:
        input_shape: [C,H,W] of its images.
    """
    traced = copy.deepcopy(network).cpu().float().eval()
    names: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any) -> None:
            if name not in names:
                names.append(name)

        return hook

    for name, layer in traced.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_pre_hook(note(name))
    with torch.no_grad():
        traced(torch.zeros(1, *input_shape))
    return names


def bits_by_layer(layers: list[str], weights: int, activations: int, edges: int, keep: Collection[str] = ()) -> Bits:
    """Return the bits of each layer that is quantized.

    Args:
        layers: all of a network's in order, from `layers_in_order`.
        weights, activations: bits of the weights and inputs of all layers but the first and the last.
        edges: bits of the first and the last layer instead, never fewer than the others'.
        keep: names of layers that are not quantized.
    """
    bits = {}
    for index, name in enumerate(layers):
        if name not in keep:
            least = edges if index in (0, len(layers) - 1) else 0
            bits[name] = (max(weights, least), max(activations, least))
    return bits


def packed_bytes(network: nn.Module, bits: Mapping[str, tuple[int, int]]) -> int:
    """Bytes of a network's weights, biases, and BN statistics, with no space between numbers of fewer than 8 bits.

    Args:
        network: the network before quantization.
        bits: bits of the quantized layers; all else, and a step size per channel, counts 32 bits a number.
    """
    held = 0
    counters = ("num_batches_tracked",)
    for name, value in network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if kind in counters:
            continue
        of_weights = bits[layer][0] if kind == "weight" and layer in bits else FLOAT_BITS
        held += value.numel() * of_weights
        if of_weights != FLOAT_BITS:
            held += (value.shape[0] + 1) * FLOAT_BITS
    return -(-held // 8)
