"""Streams: the channels of a network that can only be removed together, found by torch-pruning's dependency graph.

A channel that a convolution makes is normalized, added to others by residual connections, treated by depthwise
convolutions, and taken in by further layers. All layers that have to lose a channel at the same time make a stream.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raydream.extras import require
from raydream.networks.activations import activation_width
from raydream.networks.pruned import SelectedShortcut, is_depthwise, resize, width_of, with_selected_shortcuts

if TYPE_CHECKING:
    import torch_pruning

Side = Literal["out", "in", "through"]

MOST_NAMED = 2
"""number of layers in the way of a stream that a sentence names"""


@dataclass(frozen=True)
class Part:
    """One layer's part of a stream.

    Attributes:
        layer: the layer's name.
        side: out where it makes the channels, in where it mixes them into others, through where it treats each of
            them apart (normalization, depthwise convolutions, activations with parameters for each channel).
        places: for each channel of the stream, its indices on that side of the layer.
    """

    layer: str
    side: Side
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Stream:
    """A set of channels that run through several layers.

    Attributes:
        name: name of the layer that they were found from.
        channels: number of channels.
        parts: parts of all layers that they run through.
    """

    name: str
    channels: int
    parts: tuple[Part, ...]

    def layers(self, *sides: str) -> list[str]:
        """Return the names of the layers that have the stream on one of these sides."""
        return [part.layer for part in self.parts if part.side in sides]


@dataclass(frozen=True)
class FoundStreams:
    """The streams of a network.

    Attributes:
        streams: streams whose channels can be removed.
        left_out: by the name of the layer that each other stream was found from, the layers or parameters that cannot
            lose single channels, and why.
    """

    streams: list[Stream]
    left_out: dict[str, str]


Removed = Mapping[str, Sequence[int]]
"""channels to remove, by the name of a stream"""


def find_streams(network: nn.Module, input_shape: tuple[int, int, int]) -> list[Stream]:
    """Find the streams of a network whose channels can be removed; see `follow`."""
    return follow(network, input_shape).streams


def follow(network: nn.Module, input_shape: tuple[int, int, int]) -> FoundStreams:
    """Find the streams of a network.

    No stream holds the channels of the input or of the output. Those that run through a layer which cannot lose single
    channels (grouped convolutions, attention, parameters outside of any layer) are left out.

    Args:
        network: the network, which stays unchanged.
        input_shape: [C,H,W] of its images.
    """
    require("prune", "pruning")
    import torch_pruning  # here, as it takes a second with torchvision, and all but one job need neither

    traced = copy.deepcopy(network).cpu().float().requires_grad_(True)
    _put_layers_that_can_be_followed(traced)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # about parameters outside of layers, whose streams are left out below
        graph = torch_pruning.DependencyGraph().build_dependency(traced, torch.zeros(2, *input_shape), verbose=False)
    names: dict[object, str] = {layer: name for name, layer in traced.named_modules()}
    names |= {parameter: name for name, parameter in traced.named_parameters()}
    streams, left_out = [], {}
    for group in graph.get_all_groups(root_module_types=(nn.Conv2d, nn.Linear)):
        stream, reasons = _stream(graph, group, names)
        if reasons:
            left_out[stream.name] = _listed([*dict.fromkeys(reasons)])
        elif stream.layers("in"):  # what no layer takes in is the output
            streams.append(stream)
    return FoundStreams(sorted(streams, key=lambda stream: stream.name), left_out)


def _listed(reasons: list[str]) -> str:
    """List what stands in the way of a stream, the first few of many."""
    more = len(reasons) - MOST_NAMED
    return ", ".join([*reasons[:MOST_NAMED], *([f"and {more} more layers"] if more > 0 else [])])


def _put_layers_that_can_be_followed(network: nn.Module) -> None:
    """Replace what torch-pruning cannot follow by what it can: shortcuts by convolutions, activations by PReLU."""
    activations = {
        layer: nn.PReLU(width)
        for layer in network.modules()
        if not isinstance(layer, nn.PReLU) and (width := activation_width(layer)) is not None
    }
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        if layer in activations:
            network.set_submodule(name, activations[layer])
    for name, layer in list(with_selected_shortcuts(network).named_modules()):
        if isinstance(layer, SelectedShortcut):
            convolution = nn.Conv2d(layer.channels_in, len(layer.sources), 1, layer.stride, bias=False)
            network.set_submodule(name, convolution)


def _stream(
    graph: "torch_pruning.DependencyGraph", group: "torch_pruning.Group", names: Mapping[object, str]
) -> tuple[Stream, list[str]]:
    """Convert one of torch-pruning's groups to a stream, and name its parts that cannot lose single channels."""
    root = group[0].dep.target.module
    channels = width_of(root)[1]  # type: ignore[index]
    parts: list[Part] = []
    reasons: list[str] = []
    for item in group:
        layer, outwards = item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler)
        if layer not in names or activation_width(layer) == 1:
            continue  # an addition or an activation, which has no weights, or one for all channels
        if kind := _keeps_channels(layer):
            reasons.append(f"{names[layer]}, {kind}")
            continue
        places: list[list[int]] = [[] for _ in range(channels)]
        for place, channel in zip(item.idxs, item.root_idxs, strict=True):
            places[channel].append(int(place))
        side: Side = "through" if _is_through(layer) else "out" if outwards else "in"
        parts.append(Part(names[layer], side, tuple(map(tuple, places))))
    return Stream(names[root], channels, tuple(parts)), reasons


def _keeps_channels(layer: object) -> str:
    """Describe a layer or a parameter that cannot lose single channels; empty where it can."""
    if isinstance(layer, nn.Parameter):
        return "a parameter outside of any layer"
    if isinstance(layer, nn.Conv2d):
        return "" if layer.groups == 1 or is_depthwise(layer) else f"a convolution in {layer.groups} groups"
    known = isinstance(layer, nn.Linear | _BatchNorm) or activation_width(layer) is not None
    return "" if known else f"a {type(layer).__name__}"


def _is_through(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) or is_depthwise(layer) or activation_width(layer) is not None


def masked(network: nn.Module, streams: Sequence[Stream], removed: Removed) -> nn.Module:
    """Copy a network so that no layer takes in anything of some channels.

    The copy answers like the network without these channels, for comparison with it.
    """
    copied = with_selected_shortcuts(copy.deepcopy(network))
    for stream in streams:
        for part in stream.parts:
            if part.side == "in":
                gone = [place for channel in removed.get(stream.name, ()) for place in part.places[channel]]
                copied.get_submodule(part.layer).register_forward_pre_hook(_Silence(gone))
    return copied


class _Silence:
    """A hook that puts channels to zero, and that unlike a closure can be copied."""

    def __init__(self, places: list[int]) -> None:
        self._places = places

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = inputs
        # Channels are the last dimension where a linear layer takes several positions, else the second.
        axis = -1 if isinstance(layer, nn.Linear) else 1
        return (x.index_fill(axis, torch.tensor(self._places, dtype=torch.long, device=x.device), 0.0),)


def remove(network: nn.Module, streams: Sequence[Stream], removed: Removed) -> nn.Module:
    """Copy a network without some channels: smaller and dense.

    Args:
        streams: the network's streams.
        removed: channels to remove; at least one of each stream stays.

    Raises:
        ValueError: a stream would lose all its channels.
    """
    gone: dict[tuple[str, str], set[int]] = {}
    for stream in streams:
        channels = set(removed.get(stream.name, ()))
        if len(channels) >= stream.channels:
            raise ValueError(f"all {stream.channels} channels of {stream.name} would be removed")
        for part in stream.parts:
            lost = gone.setdefault((part.layer, part.side), set())
            lost.update(place for channel in channels for place in part.places[channel])
    smaller = with_selected_shortcuts(copy.deepcopy(network))
    for name in {layer for layer, _ in gone}:
        through = gone.get((name, "through"), set())
        _cut(
            smaller.get_submodule(name),
            gone.get((name, "in"), set()) | through,
            gone.get((name, "out"), set()) | through,
        )
    return smaller


def _cut(layer: nn.Module, gone_in: set[int], gone_out: set[int]) -> None:
    """Take channels out of one layer."""
    channels_in, channels_out = width_of(layer)  # type: ignore[misc]
    kept_in = torch.tensor([place for place in range(channels_in) if place not in gone_in])
    kept_out = torch.tensor([place for place in range(channels_out) if place not in gone_out])
    state = {name: value.cpu() for name, value in layer.state_dict().items()}
    if isinstance(layer, SelectedShortcut):
        # A kept channel that came from a removed one is zero from now on.
        moved = torch.full((channels_in + 1,), len(kept_in))
        moved[kept_in] = torch.arange(len(kept_in))
        state = {"sources": moved[state["sources"]][kept_out]}
    else:
        state = {
            name: value.index_select(value.shape.index(channels_out), kept_out)
            if channels_out in value.shape
            else value
            for name, value in state.items()
        }
        if not _is_through(layer):
            state["weight"] = state["weight"][:, kept_in]
    resize(layer, len(kept_in), len(kept_out))
    layer.load_state_dict(state)
