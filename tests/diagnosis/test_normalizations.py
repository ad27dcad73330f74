"""Which normalizations a first layer's statistics rule out."""

import pytest

from raydream.config import TeacherConfig
from raydream.diagnosis.first_layer import InputEstimate
from raydream.diagnosis.normalizations import (
    CIFAR10,
    IMAGENET,
    candidates,
    impossible,
    judged_by_first_layer,
    strangeness,
    training_pixels,
)


def config(mean=IMAGENET[0], std=IMAGENET[1]) -> TeacherConfig:
    return TeacherConfig(input_shape=(len(mean), 32, 32), mean=tuple(mean), std=tuple(std))


def estimate_of(mean, std, pixels=(0.49, 0.48, 0.45), deviation=0.25, error=0.01) -> InputEstimate:
    """What a network tells that saw pixels of this mean and deviation through this normalization."""
    means = tuple((p - m) / s for p, m, s in zip(pixels, mean, std, strict=True))
    return InputEstimate(means, (error / std[0],) * len(mean), deviation / (sum(std) / len(std)), 0.2, 6.0)


RIGHT = {
    "ImageNet": IMAGENET,
    "CIFAR-10": CIFAR10,
    "0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
    "[0, 1]": ((0.0,) * 3, (1.0,) * 3),
    "[-1, 1]": ((0.5,) * 3, (0.5,) * 3),
    "one channel": ((0.1307,), (0.3081,)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_normalization_is_plausible(name):
    mean, std = RIGHT[name]
    pixels, deviation = ((0.13,), 0.31) if len(mean) == 1 else ((0.49, 0.48, 0.45), 0.25)
    found = judged_by_first_layer(config(mean, std), estimate_of(mean, std, pixels, deviation))
    assert {finding.severity for finding in found} == {"note"} and "plausible" in found[0].text


WRONG = {
    "trained on 0 to 255": (RIGHT["0 to 255"], IMAGENET, "pixels of 0 to 255"),
    "fed with 0 to 255": (IMAGENET, RIGHT["0 to 255"], ""),
    "fed with 0 to 255, trained on [0, 1]": (RIGHT["[0, 1]"], RIGHT["0 to 255"], "pixels in [0, 1]"),
    "swapped": (IMAGENET, IMAGENET[::-1], "mean and std swapped"),
    "swapped, CIFAR-10": (CIFAR10, CIFAR10[::-1], ""),
    "[-1, 1] for ImageNet's": (IMAGENET, RIGHT["[-1, 1]"], ""),
    "[0, 1] for ImageNet's": (IMAGENET, RIGHT["[0, 1]"], ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_is_ruled_out_and_one_that_would_fit_is_named(name):
    trained, configured, better = WRONG[name]
    (found,) = judged_by_first_layer(config(*configured), estimate_of(*trained))
    assert (found.about, found.severity) == ("normalization", "suspected") and found.remedy
    assert better in found.text and "would fit" in found.text


@pytest.mark.parametrize("estimate", [None, estimate_of(*IMAGENET, error=0.5)], ids=["no layer", "a large error"])
def test_what_cannot_be_told_is_a_note_that_asks_for_images(estimate):
    (found,) = judged_by_first_layer(config(*IMAGENET[::-1]), estimate)
    assert found.severity == "note" and "--real" in found.remedy


@pytest.mark.parametrize(("pixels", "severity"), [((0.42, 0.46, 0.49), "suspected"), ((0.49, 0.46, 0.42), "note")])
def test_more_blue_than_red_is_a_hint_of_bgr(pixels, severity):
    found = judged_by_first_layer(config(*RIGHT["[0, 1]"]), estimate_of(*RIGHT["[0, 1]"], pixels))
    assert [finding.severity for finding in found if finding.about == "channels"] == [severity]


@pytest.mark.parametrize(
    ("mean", "deviation", "says"),
    [
        (0.5, 0.25, ""),
        (0.5, 0.5, ""),
        (-0.3, 0.2, "mean"),
        (120.0, 60.0, "mean"),
        (0.2, 0.55, "less than"),
        (0.4, 0.004, "one color"),
    ],
)
def test_numbers_in_0_to_1_have_bounds(mean, deviation, says):
    pixels = training_pixels(InputEstimate((mean,), (0.0,), deviation, 0.1, 4.0), (0.0,), (1.0,))
    assert (says in impossible(pixels)) if says else impossible(pixels) == ""


def test_usual_pixels_are_the_least_strange():
    one, other = (training_pixels(estimate_of(*IMAGENET), *each) for each in (IMAGENET, RIGHT["[-1, 1]"]))
    assert strangeness(one) < 1 < strangeness(other)


def test_candidates_are_named_once():
    names = [each.name for each in candidates(config((0.5,) * 3, (0.5,) * 3))]
    assert "pixels in [-1, 1]" not in names and "mean and std swapped" not in names and names[0] == "as configured"
    assert [each.name for each in candidates(config((0.3,), (0.35,))) if each.flipped] == []
