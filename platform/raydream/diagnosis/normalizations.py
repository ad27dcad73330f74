"""The normalization that a network was trained with, judged by its first layer's statistics alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raydream.config import TeacherConfig
from raydream.diagnosis.findings import Finding
from raydream.diagnosis.first_layer import InputEstimate

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)

USUAL_MEAN, MEAN_SPREAD = 0.45, 0.15
"""of the mean of natural images' pixels in [0, 1], over data sets"""
USUAL_STD, STD_FACTOR = 0.25, 1.35
"""of the standard deviation of these pixels, and the factor by which it differs between data sets"""
LEAST_STD = 0.05
"""standard deviation of pixels in [0, 1] below which images are nearly of one color"""
SLACK_MEAN = 0.05
"""allowed error of the estimated mean of pixels in [0, 1], beside its standard error"""
MOST_CONTRAST, MOST_GRAY_CONTRAST = 0.9, 1.2
"""largest standard deviation, as a share of what numbers in [0, 1] of that mean can have: colored images reach 0.6, and
gray ones 1 where they are black and white; the estimate is good to 20 %"""
CERTAIN = 0.3
"""largest standard error of the mean, in standard deviations of the input, by which anything is judged"""
REVERSED_BY = 0.02
"""difference of the means of blue and red, in pixels in [0, 1], from which the order of channels is suspected"""


@dataclass(frozen=True)
class NormalizationCandidate:
    """A way from pixels to a network's input: (pixels / 255 - mean) / std.

    Attributes:
        name: in words.
        mean, std: one number per channel.
        flipped: whether the channels of the images are reversed first (BGR).
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flipped: bool = False


CONFIGURED = "as configured"


def candidates(config: TeacherConfig) -> list[NormalizationCandidate]:
    """Return the configured normalization and those that it is usually mistaken for, each once."""
    channels = config.input_shape[0]
    mean, std = config.mean, config.std

    def same(value: float) -> tuple[float, ...]:
        return (value,) * channels

    found = [
        NormalizationCandidate(CONFIGURED, mean, std),
        NormalizationCandidate("pixels of 0 to 255", same(0.0), same(1 / 255)),
        NormalizationCandidate("pixels in [0, 1]", same(0.0), same(1.0)),
        NormalizationCandidate("pixels in [-1, 1]", same(0.5), same(0.5)),
    ]
    if all(value > 0 for value in mean):
        found.append(NormalizationCandidate("mean and std swapped", std, mean))
    if channels == 3:
        found.append(NormalizationCandidate("ImageNet's constants", *IMAGENET))
        found.append(NormalizationCandidate("CIFAR-10's constants", *CIFAR10))
        found.append(NormalizationCandidate("channels reversed (BGR)", mean, std, flipped=True))
    seen: dict[tuple[object, ...], NormalizationCandidate] = {}
    for each in found:
        seen.setdefault((each.mean, each.std, each.flipped), each)
    return list(seen.values())


@dataclass(frozen=True)
class TrainingPixels:
    """Pixels in [0, 1] that a normalization makes of an estimated input.

    Attributes:
        mean, std: one number per channel.
        error: largest standard error of the means.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    error: float


def training_pixels(estimate: InputEstimate, mean: Sequence[float], std: Sequence[float]) -> TrainingPixels:
    """Return the pixels that the network was trained on if this is the normalization."""
    means = tuple(value * scale + shift for value, scale, shift in zip(estimate.mean, std, mean, strict=True))
    error = max(value * scale for value, scale in zip(estimate.mean_error, std, strict=True))
    return TrainingPixels(means, tuple(estimate.std * scale for scale in std), error)


def impossible(pixels: TrainingPixels) -> str:
    """Say why hardly any images in [0, 1] can have these pixels; empty where many can.

    Numbers in [0, 1] of mean p have a standard deviation of at most sqrt(p (1 - p)).
    """
    slack = SLACK_MEAN + 3 * pixels.error
    contrast = MOST_CONTRAST if len(pixels.mean) > 1 else MOST_GRAY_CONTRAST
    for mean, std in zip(pixels.mean, pixels.std, strict=True):
        if not -slack <= mean <= 1 + slack:
            return f"their mean would be {mean:.3g}, outside of [0, 1]"
        inside = min(max(mean, SLACK_MEAN), 1 - SLACK_MEAN)
        most = (inside * (1 - inside)) ** 0.5
        if std > contrast * most:
            return f"their standard deviation would be {std:.3g}, and images of that mean have less than {most:.2g}"
        if std < LEAST_STD:
            return f"their standard deviation would be {std:.3g}: images of nearly one color"
    return ""


def strangeness(pixels: TrainingPixels) -> float:
    """Measure how far pixels are from those of usual images: the sum of squared deviations of mean and log(std)."""
    count = len(pixels.mean)
    means = sum(((mean - USUAL_MEAN) / MEAN_SPREAD) ** 2 for mean in pixels.mean) / count
    stds = sum((math.log(max(std, 1e-9) / USUAL_STD) / math.log(STD_FACTOR)) ** 2 for std in pixels.std) / count
    return means + stds


def judged_by_first_layer(config: TeacherConfig, estimate: InputEstimate | None) -> list[Finding]:
    """Judge the configured normalization by what the first layer shows of the training input."""
    if estimate is None:
        text = (
            "no BN layer sees a convolution of the image, so the normalization cannot be determined without real images"
        )
        return [Finding("normalization", "note", text, "name a few real images (--real FOLDER)")]
    pixels = {
        each.name: training_pixels(estimate, each.mean, each.std) for each in candidates(config) if not each.flipped
    }
    own = pixels.pop(CONFIGURED)
    if max(estimate.mean_error) > CERTAIN * estimate.std:
        text = "the first layer's statistics do not decide the mean of the training input"
        return [Finding("normalization", "note", text, "name a few real images (--real FOLDER)")]
    reason = impossible(own)
    if reason:
        fitting = sorted((strangeness(each), name) for name, each in pixels.items() if not impossible(each))
        better = f"; {fitting[0][1]} would fit" if fitting else ""
        text = f"the first layer was trained on other inputs than teacher.mean and teacher.std make of images: {reason}"
        return [Finding("normalization", "suspected", text + better, "check teacher.mean and teacher.std")]
    shown = ", ".join(f"{value:.2f}" for value in own.mean)
    spread = ", ".join(f"{value:.2f}" for value in own.std)
    text = (
        f"the first layer was trained on pixels of mean {shown} and standard deviation {spread}: plausible for images"
    )
    return [Finding("normalization", "note", text), *_channel_order(own)]


def _channel_order(pixels: TrainingPixels) -> list[Finding]:
    """Suspect BGR where blue comes out brighter than green, and green than red: most photographs are the other way."""
    if len(pixels.mean) != 3:
        return []
    red, green, blue = pixels.mean
    if blue - red > REVERSED_BY + 3 * pixels.error and red < green < blue:
        text = "the training images were brighter in blue than in red, which is unusual for photographs: perhaps BGR"
        return [Finding("channels", "suspected", text, "check the channel order with real images (--real FOLDER)")]
    text = "statistics do not show the order of the channels"
    return [Finding("channels", "note", text, "name a few real images, best with labels (--real FOLDER)")]
