"""Statistics for networks without batch normalization: gathered once from images, and kept as BN keeps its own.

A layer that keeps them has two more buffers, `running_mean` and `running_var`, each [C], of what enters it. They are a
part of the network's state: of its fingerprint, of a run's copy of the teacher, and of what travels to generators.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

BUFFERS = ("running_mean", "running_var")


def observable_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a network at whose inputs statistics can be gathered, by name, in order of definition.

    They are its LayerNorm layers over channels alone and its GroupNorm layers; where it has none, its convolutions and
    linear layers.
    """
    named = dict(network.named_modules())
    normalizing = {name: layer for name, layer in named.items() if _normalizes(layer)}
    return normalizing or {name: layer for name, layer in named.items() if isinstance(layer, _ConvNd | nn.Linear)}


def gathers(layer: nn.Module) -> bool:
    """Return whether a layer other than BN keeps statistics that were gathered from images."""
    return isinstance(layer, nn.LayerNorm | nn.GroupNorm | _ConvNd | nn.Linear) and hasattr(layer, BUFFERS[0])


def _normalizes(layer: nn.Module) -> bool:
    return isinstance(layer, nn.GroupNorm) or (isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1)


def by_channel(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what enters a layer as [N,C] or [N,C,...], as statistics are taken of it.

    Channels come last in tokens, [N,T,C], and in channels-last maps, [N,H,W,C], which linear layers and LayerNorm take.
    They come second for all other layers, and for a LayerNorm that permutes maps itself, which is called LayerNorm2d in
    torchvision and timm.
    """
    is_last = isinstance(layer, nn.LayerNorm | nn.Linear) and not type(layer).__name__.endswith("2d")
    return x.flatten(0, -2) if is_last and x.dim() > 2 else x


def keep_statistics(network: nn.Module, statistics: Mapping[str, Tensor]) -> None:
    """Let layers keep statistics.

    Args:
        statistics: mean and biased variance, [2,C], by the layer's name.
    """
    for name, values in statistics.items():
        for buffer, value in zip(BUFFERS, values, strict=True):
            network.get_submodule(name).register_buffer(buffer, value.clone())


def adopt_statistics(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Prepare a network for a state that has statistics of its layers, so that it can be loaded."""
    for name, layer in observable_layers(network).items():
        for buffer in BUFFERS:
            if (value := state.get(f"{name}.{buffer}")) is not None and not hasattr(layer, buffer):
                layer.register_buffer(buffer, torch.zeros_like(value))


@torch.no_grad()
def gather(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return mean and biased variance, [2,C] in fp32, of what enters each observable layer that runs, over all images.

    Sums are in fp64. A layer that is used several times in a pass has the statistics of all its uses.

    Args:
        network: in eval mode.
        batches: images [N,C,H,W] after normalization.
    """
    sums: dict[str, Tensor] = {}

    def observe(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = by_channel(layer, inputs[0]).double().transpose(0, 1).flatten(1)
        found = torch.stack((torch.full_like(x[:, 0], x.shape[1]), x.sum(1), x.square().sum(1)))
        sums[name] = sums[name] + found if name in sums else found

    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: observe(name, layer, inputs))
        for name, layer in observable_layers(network).items()
    ]
    try:
        for images in batches:
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    means = {name: total / count for name, (count, total, _) in sums.items()}
    variances = {name: squares / count - means[name].square() for name, (count, _, squares) in sums.items()}
    return {name: torch.stack((means[name], variances[name].clamp_min(0.0))).float() for name in sums}
