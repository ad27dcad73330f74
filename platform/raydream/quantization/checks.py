"""Checks, before anything starts, that a network can be quantized as configured."""

import difflib
from collections.abc import Collection

import torch
from torch import nn

from raydream.config import QuantizeConfig
from raydream.errors import InputError, first_line
from raydream.networks.quantized import is_quantized
from raydream.quantization.layers import layers_in_order

MOST_NAMED = 3
"""number of layers that a sentence names"""


def check_quantizable(network: nn.Module, config: QuantizeConfig) -> list[str]:
    """Check that a teacher's layers can be quantized, and that it can be exported where a file is required.

    Returns:
        names of its convolutions and linear layers, in the order in which they run.

    Raises:
        InputError: it has no such layer, is quantized already, cannot be followed by torch.export, or a layer to keep
            is not one of its layers.
    """
    name, shape = config.teacher.network, config.teacher.input_shape
    layers = layers_in_order(network, shape)
    if not layers:
        allowed = "a network with convolutions or linear layers"
        raise InputError("teacher.network", name, allowed, "it has none that run")
    if any(is_quantized(layer) for layer in network.modules()):
        raise InputError(
            "teacher.network", name, "a floating-point network", "it is quantized: name what it was made of"
        )
    check_layers(config.quantization.kept, layers)
    if set(config.quantization.kept) >= set(layers):
        raise InputError("quantization.keep", config.quantization.keep, "fewer than all layers", "leave some out")
    if config.quantization.integer:
        _check_export(network, name, shape)
    return layers


def check_layers(kept: Collection[str], layers: list[str]) -> None:
    """Check that layers to keep are among a network's layers; raises InputError, which names the nearest."""
    for each in kept:
        if each not in layers:
            near = difflib.get_close_matches(each, layers, MOST_NAMED, 0.0)
            remedy = f"there is no such layer that runs; did you mean {' or '.join(near)}?"
            raise InputError("quantization.keep", each, "a convolution or linear layer of the teacher", remedy)


def _check_export(network: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    count = torch.export.Dim("count", min=1)
    try:
        torch.export.export(network, (torch.zeros(2, *shape),), dynamic_shapes=({0: count},))
    except Exception as error:  # whatever torch.export says of a user's network
        remedy = f"torch.export says: {first_line(error)}; fewer bits are simulated and need no export"
        raise InputError("teacher.network", name, "a network that torch.export can follow", remedy) from error
