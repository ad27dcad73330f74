"""What a few real images tell of normalization, channel order and size."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from raydream.config import TeacherConfig
from raydream.diagnosis.real_images import (
    fit_real_images,
    gaussian_divergence,
    judged_by_images,
    standard_errors,
)

MEAN, STD = (0.5, 0.45, 0.4), (0.2, 0.25, 0.3)
SIZE = 16


def photographs(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Smooth images, uint8 [N,3,H,W], which are brighter in red than in blue, drawn at 16 x 16 pixels."""
    random = torch.Generator().manual_seed(seed)
    shared, own = (torch.rand(count, channels, 6, 6, generator=random) for channels in (1, 3))
    smooth = functional.interpolate(0.7 * shared + 0.3 * own, (SIZE, SIZE), mode="bicubic")
    smooth = functional.interpolate(smooth, (size, size), mode="bilinear", antialias=True)
    tinted = smooth * torch.tensor([1.1, 0.9, 0.7]).view(1, 3, 1, 1)
    return (tinted.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def config(**changes: object) -> TeacherConfig:
    return TeacherConfig(**{"input_shape": (3, SIZE, SIZE), "mean": MEAN, "std": STD, "classes": 4, **changes})


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A network with the BN statistics of photographs, whose second convolution looks at single pixels' neighbors."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16, momentum=None),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, stride=2),
            nn.BatchNorm2d(16, momentum=None),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 4),
        )
    shift, scale = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
    images = (torch.from_numpy(photographs(256, seed=1)).float() / 255 - shift) / scale
    with torch.no_grad():
        for _ in range(3):  # the second layer's statistics, once more of what the first one's make of the images
            network(images)
    return network.eval()


def judged(network: nn.Module, described: TeacherConfig, labels: np.ndarray | None = None, count: int = 64):
    seen = fit_real_images(network, described, lambda size: photographs(count, size[0]), labels)
    return {finding.about: finding for finding in judged_by_images(seen, described) if finding.severity != "note"}, seen


def test_the_right_settings_fit(trained):
    found, seen = judged(trained, config())
    assert found == {} and seen[0].fit.misfit < 0.05


@pytest.mark.parametrize(
    ("changes", "best"),
    [
        ({"mean": STD, "std": MEAN}, "mean and std swapped"),
        ({"mean": (0.0,) * 3, "std": (1 / 255,) * 3}, ""),
        ({"mean": (0.0,) * 3, "std": (1.0,) * 3}, ""),
    ],
    ids=["swapped", "0 to 255", "[0, 1]"],
)
def test_a_wrong_normalization_is_found_and_the_best_is_named(trained, changes, best):
    found, _ = judged(trained, config(**changes))
    assert found["normalization"].severity == "fault" and best in found["normalization"].text
    assert "teacher.mean" in found["normalization"].remedy


@pytest.fixture(scope="module")
def colored(trained: nn.Module) -> tuple[nn.Module, np.ndarray]:
    """The network with outputs that differ from image to image, and the classes that it names in `photographs(64)`."""
    network = copy.deepcopy(trained)
    with torch.no_grad():
        seen = (torch.from_numpy(photographs(64)).float() / 255 - 0.45) / 0.25
        network[-1].bias -= network(seen).mean(0)
        return network, network(seen).argmax(1).numpy()


GRAY = {"mean": (0.45,) * 3, "std": (0.25,) * 3}
"""a normalization that is the same in RGB and BGR"""


def test_the_channel_order_is_judged_by_labels(colored):
    network, labels = colored
    bgr = copy.deepcopy(network)
    bgr[0].weight.data = bgr[0].weight.data.flip(1)
    found, _ = judged(bgr, config(**GRAY), labels)
    assert found["channels"].severity == "fault" and "100% in BGR" in found["channels"].text
    assert "channels" not in judged(network, config(**GRAY), labels)[0]


def test_without_labels_the_channel_order_is_suspected_by_confidence(colored):
    network, _ = colored
    seen = fit_real_images(network, config(**GRAY), lambda size: photographs(64, size[0]), None)
    (flipped,) = (each for each in seen if each.fit.normalization.flipped)
    surer = torch.linspace(0.5, 1.5, 64)
    others = [replace(flipped, confidence=seen[0].confidence + surer) if each is flipped else each for each in seen]
    (finding,) = (each for each in judged_by_images(others, config(**GRAY)) if each.about == "channels")
    assert finding.severity == "suspected" and finding.remedy
    wrong = [replace(each, right=torch.full((64,), 1.0 if each is others[0] else 0.0)) for each in others]
    assert not [each for each in judged_by_images(wrong, config(**GRAY)) if each.severity == "suspected"], (
        "labels say no"
    )
    unsure = [replace(flipped, confidence=seen[0].confidence - surer) if each is flipped else each for each in seen]
    assert not [each for each in judged_by_images(unsure, config(**GRAY)) if each.about == "channels"]


def test_twice_the_size_is_found(trained):
    found, _ = judged(trained, config(input_shape=(3, 4 * SIZE, 4 * SIZE)))
    assert found["size"].severity == "fault" and f"{2 * SIZE} x {2 * SIZE}" in found["size"].text


def test_a_size_that_the_network_refuses_is_left_out():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 4)).eval()
    _, seen = judged(network, config())
    assert {each.fit.size for each in seen} == {(SIZE, SIZE)}


def test_few_images_conclude_nothing(trained):
    found, seen = judged(trained, config(mean=STD, std=MEAN), count=8)
    assert found == {} and len(judged_by_images(seen, config())) == 1


def test_overflow_is_an_infinite_misfit(trained):
    broken = copy.deepcopy(trained)
    broken[1].weight.data.fill_(3e38)
    _, seen = judged(broken, config())
    assert seen[0].fit.misfit == float("inf")


def test_the_divergence_is_that_of_torchs_distributions():
    mean, variance, other_mean, other_variance = torch.tensor([[0.3], [2.0], [-1.0], [0.5]]).double()
    one, other = (torch.distributions.Normal(m, v.sqrt()) for m, v in ((mean, variance), (other_mean, other_variance)))
    expected = torch.distributions.kl_divergence(one, other)
    torch.testing.assert_close(gaussian_divergence(mean, variance, other_mean, other_variance), expected)


@pytest.mark.parametrize(
    ("gain", "expected"), [([1.0, 1.0, 1.0], 0.0), ([0.0, 2.0, 1.0, 1.0], 1 / (0.6666667**0.5 / 2)), ([0.0] * 4, 0.0)]
)
def test_differences_are_counted_in_standard_errors(gain, expected):
    assert standard_errors(torch.tensor(gain)) == pytest.approx(expected, rel=1e-4)
