"""The importance of channels: criteria that share one signature, listed in a dict."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.pruned import width_of
from raydream.pruning.streams import Stream
from raydream.seeds import generator
from raydream.teachers.teacher import Teacher


@dataclass(frozen=True)
class Evidence:
    """The evidence that importance is measured on.

    Attributes:
        teacher: the network whose outputs the pruned network should keep.
        batches: batches of images, uint8 [N,C,H,W] each.
        temperature: temperature of both networks' outputs, > 0.
        seed: the seed of criteria that draw random numbers.
    """

    teacher: Teacher
    batches: Sequence[Tensor]
    temperature: float
    seed: int


Importance = dict[str, Tensor]
"""by the name of a stream: float64 [channels], >= 0"""

Criterion = Callable[[nn.Module, Sequence[Stream], Evidence], Importance]


def taylor(network: nn.Module, streams: Sequence[Stream], evidence: Evidence) -> Importance:
    """Squared (gradient times gate), summed over batches and over the gates that a channel passes (Molchanov 2019).

    A gate multiplies each channel behind each BN layer (behind the layer that makes the channel, where a stream has
    no BN layer); all gates are 1. The loss is KL(teacher || network) with the teacher's probabilities represented by
    one class per image that is drawn from them: cross-entropy, whose expected gradient is that of the KL. The KL itself
    is at its minimum before anything is removed, where all its gradients are zero; those to drawn classes are not, and
    the expectation of their squares is its curvature there (Fisher's information), by which removing a channel counts.
    """
    gated = _Gated(network, streams)
    total = {name: torch.zeros(len(gate), dtype=torch.float64) for name, gate in gated.gates.items()}
    drawn = generator(evidence.seed, "importance")
    for images in evidence.batches:
        x = evidence.teacher.normalization(images)
        with torch.no_grad():
            classes = draw_classes(evidence.teacher.network(x), evidence.temperature, drawn)
        with torch.enable_grad():
            loss = functional.cross_entropy(gated.network(x) / evidence.temperature, classes)
            slopes = torch.autograd.grad(loss, list(gated.gates.values()))
        for name, slope in zip(gated.gates, slopes, strict=True):
            total[name] += slope.cpu().double().square()  # Apple GPUs have no float64
    return {stream.name: _summed(stream, total) for stream in streams}


def draw_classes(logits: Tensor, temperature: float, random: torch.Generator) -> Tensor:
    """Draw a class for each image, int64 [N], from the softened logits' [N,K] probabilities; on their device."""
    likely = functional.softmax(logits / temperature, dim=1).cpu()
    return torch.multinomial(likely, 1, generator=random).squeeze(1).to(logits.device)


def magnitude(network: nn.Module, streams: Sequence[Stream], evidence: Evidence) -> Importance:
    """Return the norm of a channel's weights, relative to its layer's mean, as a mean over its layers (Li 2017)."""
    norms: dict[str, Tensor] = {}
    for layer in {layer for stream in streams for layer in stream.layers("out")}:
        if (weight := getattr(network.get_submodule(layer), "weight", None)) is not None:
            norm = weight.detach().cpu().double().flatten(1).norm(dim=1)
            norms[layer] = norm / norm.mean()
    return {
        stream.name: _summed(stream, norms) / sum(layer in norms for layer in stream.layers("out"))
        for stream in streams
    }


def random(network: nn.Module, streams: Sequence[Stream], evidence: Evidence) -> Importance:
    """Draw importance uniformly from [0, 1)."""
    drawn = generator(evidence.seed, "random importance")
    return {stream.name: torch.rand(stream.channels, generator=drawn, dtype=torch.float64) for stream in streams}


CRITERIA: dict[str, Criterion] = {"taylor": taylor, "magnitude": magnitude, "random": random}


def _summed(stream: Stream, of_layers: Mapping[str, Tensor]) -> Tensor:
    """Sum each channel's values over the stream's layers, [channels]."""
    total = torch.zeros(stream.channels, dtype=torch.float64)
    for part in stream.parts:
        if part.side != "in" and part.layer in of_layers:
            values = of_layers[part.layer].cpu()
            total += torch.stack([values[list(places)].sum() for places in part.places])
    return total


class _Gated:
    """A copy of a network in eval mode whose streams pass gates.

    Attributes:
        network: the copy, without gradients for its weights.
        gates: by the name of the layer that each is behind: ones [channels].
    """

    def __init__(self, network: nn.Module, streams: Sequence[Stream]) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.gates: dict[str, Tensor] = {}
        normalized = batch_norm_layers(self.network)
        for stream in streams:
            for name in [name for name in stream.layers("through") if name in normalized] or stream.layers("out"):
                self._put_gate(name)

    def _put_gate(self, name: str) -> None:
        if name in self.gates:
            return  # a layer behind a concatenation, of several streams
        layer = self.network.get_submodule(name)
        like, (_, channels) = next(self.network.parameters()), width_of(layer)  # type: ignore[misc]
        gate = torch.ones(channels, device=like.device, dtype=like.dtype, requires_grad=True)

        def close(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            shape = [1] * output.dim()
            shape[-1 if isinstance(layer, nn.Linear) else 1] = -1
            return output * gate.view(shape)

        layer.register_forward_hook(close)
        self.gates[name] = gate
