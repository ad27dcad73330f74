"""Estimates mean and scale of a network's training input from its first layer's weights and BN statistics.

Where the first BN layer sees a convolution of the image, its running mean of filter k is

    m_k = sum over channels c of A_kc mu_c + b_k,

with the input's mean mu_c, the bias b_k, and A_kc, the filter's mean answer to an image that is 1 in channel c and 0 in
the others. With more filters than channels this is solved for mu by least squares. Its running variance is

    v_k = sigma^2 f_k + g_k,

with f_k, the filter's variance on images of unit variance whose pixels are correlated as those of natural images are,
and g_k, what zeros at the border add to the variance of a constant image of mean mu. The length of the correlation and
the correlation of channels are chosen by which fits best; sigma then follows.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raydream.networks.batch_norm import batch_norm_layers

LENGTHS = (0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
"""lengths, in pixels, over which the correlation of two pixels falls to 1/e"""
CHANNEL_CORRELATIONS = (0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
"""correlations of two channels of one pixel"""
DEAD = 1e-3
"""share of the largest standard deviation below which a filter's statistics say nothing"""


@dataclass(frozen=True)
class FirstLayer:
    """A first BN layer that sees the image, or a convolution of it.

    Letters: K filters, C channels of the image.

    Attributes:
        name: of the BN layer.
        convolution: its convolution, on the CPU in float64; None where the BN layer sees the image itself.
        mean, variance: running, float64 [K].
        shape: [C,H,W] of the images.
    """

    name: str
    convolution: nn.Conv2d | None
    mean: Tensor
    variance: Tensor
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class InputEstimate:
    """The input that a network was trained on, estimated from its first layer, in its units (after normalization).

    Attributes:
        mean: of each channel, [C].
        mean_error: standard error of each, [C], from what the fit leaves over.
        std: of pixels, over images and positions; the same for all channels.
        std_misfit: what that fit leaves over of the variances, relative, as a root mean square.
        length: of the correlation of pixels, in pixels.
    """

    mean: tuple[float, ...]
    mean_error: tuple[float, ...]
    std: float
    std_misfit: float
    length: float


def first_layer(network: nn.Module, shape: tuple[int, int, int]) -> FirstLayer | None:
    """Find the first BN layer that sees the image or a convolution of it alone; None: there is none.

    Args:
        network: stays unchanged.
        shape: [C,H,W] of its images.
    """
    traced = copy.deepcopy(network).cpu().float().eval()
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    names = {layer: name for name, layer in batch_norm_layers(traced).items() if layer.running_mean is not None}
    made: list[tuple[nn.Conv2d, Tensor]] = []
    found: list[tuple[nn.Module, nn.Conv2d | None]] = []

    def convolved(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and _same(inputs[0], image):
            made.append((layer, output.clone()))  # a copy, as an activation may change it in place

    def entering(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if found or not inputs:
            return
        if _same(inputs[0], image):
            found.append((layer, None))
        found.extend((layer, each) for each, output in made if _same(inputs[0], output))

    for layer in traced.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(convolved)
        elif layer in names:
            layer.register_forward_pre_hook(entering)
    with torch.no_grad():
        traced(image)
    if not found:
        return None
    layer, convolution = found[0]
    mean, variance = (getattr(layer, name).detach().double() for name in ("running_mean", "running_var"))
    convolution = None if convolution is None else _plain(convolution)
    return FirstLayer(names[layer], convolution, mean, variance, shape)


def _plain(convolution: nn.Conv2d) -> nn.Conv2d:
    convolution._forward_hooks.clear()
    return convolution.double().requires_grad_(False)


def _same(one: Any, other: Tensor) -> bool:
    return isinstance(one, Tensor) and one.shape == other.shape and torch.equal(one, other)


def estimate_input(layer: FirstLayer) -> InputEstimate | None:
    """Estimate mean and standard deviation of the input that a first layer was trained on.

    Returns:
        None where the statistics do not decide: values that are not finite, or fewer living filters than channels.
    """
    deviation = layer.variance.clamp_min(0).sqrt()
    living = deviation > DEAD * deviation.max()
    channels = layer.shape[0]
    known = bool(layer.mean.isfinite().all() and layer.variance.isfinite().all())
    if not known or int(living.sum()) < channels:
        return None
    if layer.convolution is None:
        # Each channel is seen as it is: nothing has to be fitted.
        mean, std = layer.mean.tolist(), float(layer.variance.mean().sqrt())
        return InputEstimate(tuple(mean), (0.0,) * channels, std, 0.0, 0.0)
    rows = _mean_answers(layer)[living] / deviation[living, None]
    offset = layer.mean if layer.convolution.bias is None else layer.mean - layer.convolution.bias
    wanted = offset[living] / deviation[living]
    if int(torch.linalg.matrix_rank(rows, rtol=1e-6)) < channels:
        return None
    mean = torch.linalg.lstsq(rows, wanted[:, None]).solution[:, 0]
    spare = max(1, len(wanted) - channels)
    noise = float((rows @ mean - wanted).square().sum() / spare)
    errors = (noise * torch.linalg.inv(rows.T @ rows).diagonal()).sqrt()
    std, misfit, length = _scale(layer, living, mean)
    return InputEstimate(tuple(mean.tolist()), tuple(errors.tolist()), std, misfit, length)


@torch.no_grad()
def _mean_answers(layer: FirstLayer) -> Tensor:
    """Return A, [K,C]: each filter's mean answer to an image that is 1 in one channel and 0 in the others."""
    return _without_bias(layer, torch.eye(layer.shape[0], dtype=torch.float64)).mean((2, 3)).T


@torch.no_grad()
def _without_bias(layer: FirstLayer, colors: Tensor) -> Tensor:
    """Return what the filters answer to images [N,C] of one color each, without the bias: [N,K,H,W]."""
    assert layer.convolution is not None
    answers: Tensor = layer.convolution(colors[:, :, None, None].expand(-1, -1, *layer.shape[1:]))
    bias = layer.convolution.bias
    return answers if bias is None else answers - bias[:, None, None]


def _scale(layer: FirstLayer, living: Tensor, mean: Tensor) -> tuple[float, float, float]:
    """Return sigma, the relative misfit of the variances, and the length of the correlation."""
    border = _without_bias(layer, mean[None])[0].var((1, 2), correction=0)[living]
    variance = layer.variance[living]
    fits = []
    correlations = CHANNEL_CORRELATIONS if layer.shape[0] > 1 else (1.0,)
    for length, between in itertools.product(LENGTHS, correlations):
        unit = unit_variances(layer, length, between)[living] / variance
        wanted = (variance - border) / variance
        square = float(((unit * wanted).sum() / unit.square().sum()).clamp_min(0))
        misfit = float((square * unit - wanted).square().mean().sqrt())
        fits.append((misfit, square**0.5, length))
    misfit, std, length = min(fits)
    return std, misfit, length


@torch.no_grad()
def unit_variances(layer: FirstLayer, length: float, between: float) -> Tensor:
    """Return f, [K]: the variance of each filter's answer to images of unit variance.

    Args:
        length: two pixels at a distance d, in pixels, have the correlation exp(-d / length).
        between: correlation of two channels of one pixel.
    """
    assert layer.convolution is not None
    weight = layer.convolution.weight.double()
    high, wide = (
        torch.arange(side) * step for side, step in zip(weight.shape[2:], layer.convolution.dilation, strict=True)
    )
    places = torch.cartesian_prod(high, wide).double()
    of_pixels = torch.exp(-torch.cdist(places, places) / length)
    channels = weight.shape[1]
    of_channels = between + (1 - between) * torch.eye(channels, dtype=torch.float64)
    taps = weight.flatten(2)  # [K,C,U]
    return torch.einsum("kcu,cd,uv,kdv->k", taps, of_channels, of_pixels, taps)
