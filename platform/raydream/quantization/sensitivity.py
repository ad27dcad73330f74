"""The loss from quantizing each layer alone, which suggests the layers to keep in floating point."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydream.losses.divergences import kl_divergence
from raydream.quantization.ranges import Histogram, RangeMethod, calibrated


@dataclass(frozen=True)
class Sensitivity:
    """The change of a network's outputs when one of its layers is quantized.

    Attributes:
        layer: name of the layer.
        weights: number of values of its weight.
        weight_bits, input_bits: bits of its weight and input.
        divergence: KL(float || quantized) of the outputs, mean over the images, in nats, >= 0.
        agreement: share in [0, 1] of the images for which both predict the same class.
    """

    layer: str
    weights: int
    weight_bits: int
    input_bits: int
    divergence: float
    agreement: float


@torch.no_grad()
def sensitivities(
    network: nn.Module,
    bits: Mapping[str, tuple[int, int]],
    seen: Mapping[str, Histogram],
    method: RangeMethod,
    batches: Callable[[], Iterable[Tensor]],
    on_layer: Callable[[int], None] = lambda done: None,
) -> list[Sensitivity]:
    """Measure the sensitivity of each layer; returns the most sensitive first.

    Args:
        network: floating-point, in eval mode; stays unchanged.
        bits: bits of each layer that would be quantized.
        seen: histograms of `observe`, for each of them.
        batches: called for each layer, returns normalized [N,C,H,W].
        on_layer: called after each layer with the number of layers that are done.
    """
    expected = [network(batch).float() for batch in batches()]
    images = sum(len(each) for each in expected)
    found = []
    for name, each in bits.items():
        alone = calibrated(network, {name: each}, seen, method).eval()
        divergence, agreeing = 0.0, 0
        for batch, said in zip(batches(), expected, strict=True):
            logits = alone(batch).float()
            divergence += float(kl_divergence(said, logits, temperature=1.0)) * len(said)
            agreeing += int((said.argmax(1) == logits.argmax(1)).sum())
        weights = network.get_submodule(name).weight
        assert isinstance(weights, Tensor)
        found.append(Sensitivity(name, weights.numel(), *each, max(0.0, divergence / images), agreeing / images))
        on_layer(len(found))
    return sorted(found, key=lambda one: -one.divergence)
