"""The cost of a network at any widths of its layers: filters, FLOPs, or measured time."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from raydream.networks.pruned import Widths, is_depthwise, width_of, with_selected_shortcuts

Cost = Callable[[str, int, int], float]
"""cost of a layer by its name, with the given channels in and out"""


def total(cost: Cost, widths: Widths) -> float:
    """Sum the cost of all layers."""
    return sum(cost(name, *width) for name, width in widths.items())


def filters(network: nn.Module) -> Cost:
    """Channels that convolutions make."""
    convolutions = {name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    return lambda name, channels_in, channels_out: float(channels_out) if name in convolutions else 0.0


def flops(network: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Count multiplications and additions of convolutions and linear layers for one image, as torch's counter does."""
    layers, shapes = dict(network.named_modules()), output_shapes(network, input_shape)

    def cost(name: str, channels_in: int, channels_out: int) -> float:
        layer = layers[name]
        if isinstance(layer, nn.Linear):
            positions = shapes[name].numel() // layer.out_features
            return 2.0 * channels_in * channels_out * positions
        if isinstance(layer, nn.Conv2d):
            inputs = 1 if is_depthwise(layer) else channels_in // layer.groups
            area = layer.kernel_size[0] * layer.kernel_size[1] * shapes[name][-2] * shapes[name][-1]
            return 2.0 * inputs * channels_out * area
        return 0.0

    return cost


def output_shapes(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, torch.Size]:
    """Return the shape of each layer's output for one image, by name, for layers that run and have channels."""
    return {name: shapes[1] for name, shapes in _shapes(network, input_shape).items()}


def input_shapes(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, torch.Size]:
    """Return the shape of each layer's input for one image, as `output_shapes` does."""
    return {name: shapes[0] for name, shapes in _shapes(network, input_shape).items()}


def _shapes(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, tuple[torch.Size, torch.Size]]:
    observed, found = with_selected_shortcuts(copy.deepcopy(network)).cpu().float().eval(), {}

    def see(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            found[name] = (inputs[0].shape, output.shape)

        return hook

    for name, layer in observed.named_modules():
        if width_of(layer) is not None:
            layer.register_forward_hook(see(name))
    with torch.no_grad():
        observed(torch.zeros(1, *input_shape))
    return found
