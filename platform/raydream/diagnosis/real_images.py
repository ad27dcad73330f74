"""The normalization, channel order and size that BN statistics and labels fit best on a few real images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raydream.config import TeacherConfig
from raydream.diagnosis.findings import Finding
from raydream.diagnosis.normalizations import NormalizationCandidate, candidates
from raydream.networks.observed import ObservedNetwork
from raydream.teachers.normalization import Normalization

MOST_IMAGES = 256
"""real images that are looked at"""
FEWEST_IMAGES = 16
"""real images from which anything is concluded"""
CLEARLY = 0.5
"""share of the configured misfit below which another choice counts as the better one"""
LEAST_GAIN = 0.03
"""nats by which it has to be better, too"""
LARGE = 1.0
"""misfit in nats above which the images are unlike the training images, whatever is chosen"""
SIGNIFICANT = 2.5
"""standard errors by which labels or confidence have to be better for another order of channels"""
SIZES = (0.5, 2.0)
"""factors on height and width that are tried"""

ImagesAt = Callable[[tuple[int, int]], np.ndarray]
"""from (height, width) to the real images in that size, uint8 [N,C,H,W]"""


@dataclass(frozen=True)
class Fit:
    """The fit of a network's BN statistics to real images under a normalization and at a size.

    Attributes:
        normalization: how the images became the network's input.
        size: height and width of the images.
        misfit: in nats, the divergence of the images' statistics from the running ones as Gaussians: the median over a
            layer's channels, its mean over layers; infinite where it overflows.
        accuracy: share of the images that are classified by their label; None without labels.
        confidence: mean logarithm of the highest probability, <= 0.
    """

    normalization: NormalizationCandidate
    size: tuple[int, int]
    misfit: float
    accuracy: float | None
    confidence: float


@dataclass(frozen=True)
class ImageFit:
    """A network's answers beside a fit.

    Attributes:
        right: for each image, 1 where the label is named; None without labels.
        confidence: for each image, the logarithm of the highest probability.
    """

    fit: Fit
    right: Tensor | None
    confidence: Tensor


def gaussian_divergence(mean: Tensor, variance: Tensor, running_mean: Tensor, running_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(running mean, running variance)) of each channel, in nats, >= 0."""
    ratio = (variance / running_variance).clamp_min(1e-12)
    return 0.5 * ((mean - running_mean).square() / running_variance + ratio - 1 - ratio.log())


def misfit(observed: ObservedNetwork, statistics: Tensor) -> float:
    """Return the misfit of statistics [2, C of all layers and uses], see `Fit`; infinity where they overflow."""
    used: list[Any] = [
        layer for layer, count in zip(observed.layers.values(), observed.uses, strict=True) for _ in range(count)
    ]
    widths = [len(layer.running_mean) for layer in used]
    found = []
    for layer, (mean, variance) in zip(used, torch.split(statistics.double(), widths, dim=1), strict=True):
        running_mean, running_variance = layer.running_mean.double(), layer.running_var.double()
        living = running_variance > 1e-3 * running_variance.median()
        if living.any():
            found.append(
                gaussian_divergence(mean, variance, running_mean, running_variance.clamp_min(1e-12))[living].median()
            )
    value = float(torch.stack(found).mean()) if found else float("inf")
    return value if np.isfinite(value) else float("inf")


def fit_real_images(
    network: nn.Module, config: TeacherConfig, images_at: ImagesAt, labels: np.ndarray | None
) -> list[ImageFit]:
    """Show real images to a network under each candidate normalization, and in other sizes as configured.

    Args:
        network: with BN layers that keep statistics; on the CPU; stays unchanged.
        labels: int64 [N]; None where there are none.

    Returns:
        the configured choice first. Sizes that the network does not accept are left out.
    """
    observed = ObservedNetwork(network, statistics=True)
    size = config.input_shape[1:]
    images = images_at(size)
    seen = [_seen(observed, images, labels, each) for each in candidates(config)]
    for factor in SIZES:
        other = (round(size[0] * factor), round(size[1] * factor))
        try:
            seen.append(_seen(observed, images_at(other), labels, seen[0].fit.normalization))
        except Exception:  # whatever a network raises for a size that it does not accept
            continue
    return seen


@torch.no_grad()
def _seen(
    observed: ObservedNetwork, images: np.ndarray, labels: np.ndarray | None, chosen: NormalizationCandidate
) -> ImageFit:
    pixels = torch.from_numpy(np.ascontiguousarray(images[:, ::-1] if chosen.flipped else images))
    answer = observed(Normalization(chosen.mean, chosen.std)(pixels))
    assert answer.statistics is not None
    logits = answer.logits.float()
    confidence = logits.log_softmax(1).amax(1)
    right = None if labels is None else (logits.argmax(1) == torch.from_numpy(labels)).float()
    size = (images.shape[2], images.shape[3])
    accuracy = None if right is None else float(right.mean())
    fit = Fit(chosen, size, misfit(observed, answer.statistics), accuracy, float(confidence.mean()))
    return ImageFit(fit, right, confidence)


def judged_by_images(seen: list[ImageFit], config: TeacherConfig) -> list[Finding]:
    """Judge normalization, channel order and size by what real images showed."""
    own, size = seen[0].fit, config.input_shape[1:]
    if len(seen[0].confidence) < FEWEST_IMAGES:
        text = f"{len(seen[0].confidence)} real images are too few to conclude anything from"
        return [Finding("normalization", "note", text, f"name {FEWEST_IMAGES} at least")]
    plain = [each.fit for each in seen if each.fit.size == size and not each.fit.normalization.flipped]
    best = min(plain, key=lambda fit: fit.misfit)
    found = []
    if _clearly(best.misfit, own.misfit):
        text = (
            f"the BN statistics fit the real images best with {best.normalization.name}: a misfit of "
            f"{_nats(best.misfit)}, and {_nats(own.misfit)} as configured"
        )
        mean, std = _numbers(best.normalization.mean), _numbers(best.normalization.std)
        remedy = f"set teacher.mean to {mean} and teacher.std to {std}"
        found.append(Finding("normalization", "fault", text, remedy))
    else:
        text = f"the configured normalization fits the real images: a misfit of {_nats(own.misfit)}"
        found.append(Finding("normalization", "note", text))
        # Under a wrong normalization, sizes cannot be compared.
        found += _of_size([each.fit for each in seen if each.fit.size != size], own)
    found += _of_channels(seen)
    if best.misfit > LARGE:
        text = f"the real images are unlike the training images: a misfit of {_nats(best.misfit)} at best"
        found.append(Finding("normalization", "suspected", text, "take images as the network was trained on"))
    return found


def _clearly(better: float, worse: float) -> bool:
    return better < CLEARLY * worse and worse - better > LEAST_GAIN


def _of_channels(seen: list[ImageFit]) -> list[Finding]:
    own = seen[0]
    flipped = next((each for each in seen if each.fit.normalization.flipped), None)
    if flipped is None:
        return []
    remedy = "give the network images in BGR: reverse its first layer's input channels, or mean and std with them"
    by_label = None if own.right is None or flipped.right is None else flipped.right - own.right
    if by_label is not None and standard_errors(by_label) > SIGNIFICANT:
        shares = f"{flipped.fit.accuracy:.0%} in BGR, {own.fit.accuracy:.0%} in RGB"
        text = f"more real images are classified by their label with reversed channels: {shares}"
        return [Finding("channels", "fault", text, remedy)]
    surer = standard_errors(flipped.confidence - own.confidence) > SIGNIFICANT
    if surer and (by_label is None or by_label.mean() >= 0):
        text = "the network is surer of the real images with reversed channels"
        return [Finding("channels", "suspected", text, remedy)]
    return []


def standard_errors(gain: Tensor) -> float:
    """Return a paired difference [N] in units of its standard error; 0 where all pairs are equal."""
    error = float(gain.std()) / len(gain) ** 0.5
    return float(gain.mean()) / error if error > 0 else 0.0


def _of_size(others: list[Fit], own: Fit) -> list[Finding]:
    best, size = min([own, *others], key=lambda fit: fit.misfit), own.size
    if not _clearly(best.misfit, own.misfit):
        return []
    text = (
        f"the BN statistics fit the real images better at {best.size[0]} x {best.size[1]} pixels (a misfit of "
        f"{_nats(best.misfit)}) than at the configured {size[0]} x {size[1]} ({_nats(own.misfit)})"
    )
    return [
        Finding("size", "fault", text, f"set the height and width in teacher.input_shape, to {list(best.size)} perhaps")
    ]


def _nats(value: float) -> str:
    return f"{value:.3g} nats"


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
