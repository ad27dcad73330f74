"""Pruned networks: the widths of the remaining layers describe them, and are enough to rebuild them."""

import json
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from raydream.networks.activations import activation_width
from raydream.networks.resnet import PaddedShortcut

Widths = dict[str, tuple[int, int]]
"""channels in and out of each layer by name; a layer that treats each channel separately has equal numbers"""


class SelectedShortcut(nn.Module):
    """He et al.'s option A for any widths: each output channel is one of the input's, or zero.

    It takes the place of a `PaddedShortcut` (whose channels are in a fixed order) where channels of its two ends are
    removed independently of each other. Nothing in it is learned or multiplied.

    Args:
        channels_in: of the input.
        sources: int64 [C], for each output channel the input's, or `channels_in` for zeros.
        stride: between the pixels that are kept.
    """

    sources: Tensor

    def __init__(self, channels_in: int, sources: Tensor, stride: int) -> None:
        super().__init__()
        self.channels_in, self.stride = channels_in, stride
        self.register_buffer("sources", sources)

    @classmethod
    def like(cls, shortcut: PaddedShortcut) -> "SelectedShortcut":
        """Build the equivalent of a `PaddedShortcut`."""
        return cls(shortcut.channels_in, _padded(shortcut.channels_in, shortcut.channels_out), shortcut.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N,channels_in,H,W] to [N,C,H/stride,W/stride]."""
        kept = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, 1))
        return kept.index_select(1, self.sources)

    def reset_parameters(self) -> None:
        """Set the sources to those of even padding on both sides."""
        self.sources = _padded(self.channels_in, len(self.sources)).to(self.sources.device)


def _padded(channels_in: int, channels_out: int) -> Tensor:
    places = torch.arange(channels_out) - (channels_out - channels_in) // 2
    return torch.where((places >= 0) & (places < channels_in), places, channels_in)


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution that treats each channel separately."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels


def width_of(layer: nn.Module) -> tuple[int, int] | None:
    """Return a layer's channels in and out; None for one without channels of its own."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, _BatchNorm):
        return layer.num_features, layer.num_features
    if isinstance(layer, SelectedShortcut):
        return layer.channels_in, len(layer.sources)
    width = activation_width(layer) or 1
    return (width, width) if width > 1 else None


def widths_of(network: nn.Module) -> Widths:
    """Return the widths of all layers that have channels of their own."""
    found = {name: width_of(layer) for name, layer in network.named_modules()}
    return {name: width for name, width in found.items() if width is not None}


def resize(layer: nn.Module, channels_in: int, channels_out: int) -> None:
    """Change a layer's numbers of channels, with fresh weights.

    Raises:
        ValueError: the layer has no such channels, or cannot have this number of them.
    """
    if min(channels_in, channels_out) < 1:
        raise ValueError(f"a layer of {channels_in} to {channels_out} channels")
    if isinstance(layer, nn.Conv2d):
        if is_depthwise(layer):
            layer.groups = channels_out
        layer.in_channels, layer.out_channels = channels_in, channels_out
        _renew(layer, "weight", (channels_out, channels_in // layer.groups, *layer.kernel_size))
        _renew(layer, "bias", (channels_out,))
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = channels_in, channels_out
        _renew(layer, "weight", (channels_out, channels_in))
        _renew(layer, "bias", (channels_out,))
    elif isinstance(layer, _BatchNorm):
        layer.num_features = channels_out
        for name in ("weight", "bias", "running_mean", "running_var"):
            _renew(layer, name, (channels_out,))
    elif isinstance(layer, SelectedShortcut):
        layer.channels_in, layer.sources = channels_in, layer.sources.new_empty(channels_out)
    elif width := activation_width(layer):
        _resize_activation(layer, width, channels_out)
        return
    else:
        raise ValueError(f"a {type(layer).__name__} has no channels of its own")
    reset: Callable[[], None] = layer.reset_parameters
    reset()


def _resize_activation(layer: nn.Module, before: int, channels: int) -> None:
    """Give each channel the first one's parameters; activations need not have a reset method."""
    for name, old in list(layer.named_parameters()):
        if old.numel() == before > 1:
            axis = old.shape.index(before)
            first = old.detach().narrow(axis, 0, 1).repeat_interleave(channels, axis)
            setattr(layer, name, nn.Parameter(first, old.requires_grad))
    if isinstance(layer, nn.PReLU):
        layer.num_parameters = channels


def _renew(layer: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    old = getattr(layer, name)
    if isinstance(old, nn.Parameter):
        setattr(layer, name, nn.Parameter(old.new_empty(shape), old.requires_grad))
    elif old is not None:
        setattr(layer, name, old.new_empty(shape))


def resized(network: nn.Module, widths: Mapping[str, tuple[int, int]]) -> nn.Module:
    """Resize a network's layers to these widths, with fresh weights where they differ; changes and returns it.

    Raises:
        ValueError: it has no such layer, or a layer cannot be so wide.
    """
    own = widths_of(with_selected_shortcuts(network))
    for name, (channels_in, channels_out) in widths.items():
        if name not in own:
            raise ValueError(f"there is no layer {name!r} with channels in it")
        if own[name] != (channels_in, channels_out):
            resize(network.get_submodule(name), channels_in, channels_out)
    return network


def with_selected_shortcuts(network: nn.Module) -> nn.Module:
    """Replace every `PaddedShortcut` of a network by its `SelectedShortcut`; changes and returns it."""
    device = next((parameter.device for parameter in network.parameters()), None)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, PaddedShortcut):
            network.set_submodule(name, SelectedShortcut.like(layer).to(device))
    return network


def widths_text(widths: Mapping[str, tuple[int, int]]) -> str:
    """Write widths as JSON, for a configuration's arguments."""
    return json.dumps({name: list(width) for name, width in widths.items()}, separators=(",", ":"))


def parse_widths(text: str) -> Widths:
    """Parse the JSON of `widths_text`. Raises ValueError for anything else."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("widths are a JSON object: {layer: [channels in, channels out]}")
    widths: Widths = {}
    for name, width in found.items():
        if not (isinstance(width, list) and len(width) == 2 and all(type(count) is int for count in width)):
            raise ValueError(f"the width of {name!r} is [channels in, channels out], not {width!r}")
        widths[name] = (width[0], width[1])
    return widths
