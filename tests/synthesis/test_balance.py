"""Coefficients that follow from the teacher's gradients."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

import raydream
from raydream.applications.continual.methods import METHODS as CONTINUAL_METHODS
from raydream.cli import parse
from raydream.commands import NAMES, imported
from raydream.config import CoefficientsConfig, SynthesisConfig, TeacherConfig
from raydream.config.continual import ALL_METHODS, default_coefficients_if_inverted
from raydream.config.synthesis import default_coefficients, default_coefficients_if_made
from raydream.errors import InputError
from raydream.synthesis.balance import RATIOS, balanced, gradient_lengths, own_terms, with_balance, with_numbers
from raydream.synthesis.engine import Engine
from raydream.teachers.teacher import make_teacher
from tests.tiny import tiny_synthesis, tiny_teacher

AUTOMATIC = {"feature": "auto", "tv": "auto"}


def settings(**coefficients: object) -> SynthesisConfig:
    return tiny_synthesis(method="deep_inversion", coefficients=coefficients)


def test_the_gradients_after_their_coefficients_have_the_ratios():
    found = balanced({"classification": 2.0, "feature": 8.0, "tv": 40.0, "l2": 1.0}, 0.5)
    assert found["feature"] * 8.0 == pytest.approx(RATIOS["feature"] * 2.0 * 0.5, rel=0.05)
    assert found["tv"] * 40.0 == pytest.approx(RATIOS["tv"] * 2.0 * 0.5, rel=0.05)
    assert found.keys() == {"feature", "tv"} and found["feature"] == float(f"{found['feature']:.2g}")


def test_without_a_class_loss_the_others_are_chosen_as_for_a_coefficient_of_one():
    lengths = {"classification": 2.0, "tv": 40.0}
    assert balanced(lengths, 0.0) == balanced(lengths, 1.0)


@pytest.mark.parametrize(
    ("lengths", "names"),
    [
        ({}, set()),
        ({"classification": 0.0, "feature": 1.0}, set()),
        ({"classification": float("nan"), "feature": 1.0}, set()),
        ({"classification": 1.0, "feature": 0.0, "tv": 1.0}, {"tv"}),
        ({"classification": 1.0, "feature": float("nan"), "tv": 1.0}, {"tv"}),
        ({"classification": 1.0, "feature": float("inf"), "tv": 1.0}, {"tv"}),
    ],
)
def test_no_coefficient_follows_from_a_gradient_of_no_length(lengths, names):
    assert set(balanced(lengths, 1.0)) == names


def test_the_lengths_are_those_of_the_objectives_gradient():
    teacher, config = tiny_teacher(), settings()
    lengths = gradient_lengths(teacher, config, own_terms(config), 0)
    assert set(lengths) == {"classification", "tv", "tv_l1", "l2", "l2_per_image", "feature"}
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = x.clamp(*teacher.normalization.canvas().valid_range())
    only = replace(config, coefficients=CoefficientsConfig(classification=0, tv=0, l2=0, feature=2.5))
    gradient = Engine(teacher, only, ("feature",), 1).gradient(None)(x, torch.arange(8) % 10).gradient
    assert float(gradient.norm()) == pytest.approx(2.5 * lengths["feature"], rel=1e-4)


def test_a_batch_larger_than_a_pass_has_the_lengths_of_the_whole_batch():
    teacher, terms = tiny_teacher(), ("classification", "tv", "feature")
    whole = replace(settings(), batch_size=80)
    x = torch.randn(80, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    x = x.clamp(*teacher.normalization.canvas().valid_range())
    at_once = replace(whole, coefficients=CoefficientsConfig(classification=0, tv=0, l2=0, feature=1))
    expected = Engine(teacher, at_once, ("feature",), 1).gradient(None)(x, torch.arange(80) % 10).gradient.norm()
    small, large = gradient_lengths(teacher, settings(), terms, 3), gradient_lengths(teacher, whole, terms, 3)
    assert large["feature"] == pytest.approx(float(expected), rel=1e-3)
    # A mean over ten times the images has a gradient that is shorter by their root; a norm of the batch has not.
    assert large["classification"] == pytest.approx(small["classification"] / 10**0.5, rel=0.3)
    assert large["tv"] == pytest.approx(small["tv"], rel=0.05)


def test_named_coefficients_stay_and_automatic_ones_become_numbers():
    teacher = tiny_teacher()
    named = settings(feature=0.7, tv=1e-3)
    assert with_balance(teacher, named, 0) is named
    both, one = with_balance(teacher, settings(**AUTOMATIC), 0), with_balance(teacher, settings(feature="auto"), 0)
    assert both.coefficients.automatic == ()
    assert one.coefficients.feature == both.coefficients.feature > 0
    assert one.coefficients.tv == CoefficientsConfig().tv != both.coefficients.tv > 0
    lengths = gradient_lengths(teacher, settings(), ("classification", "feature", "tv"), 0)
    assert balanced(lengths, 1.0) == {name: getattr(both.coefficients, name) for name in AUTOMATIC}


def test_the_teacher_is_left_as_it_is():
    teacher = tiny_teacher()
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    with_balance(teacher, settings(**AUTOMATIC), 0)
    after = teacher.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("method", "network"), [("noise", None), ("deep_inversion", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))]
)
def test_a_term_that_is_not_measured_gets_its_default(method, network):
    teacher = tiny_teacher() if network is None else make_teacher(network, TeacherConfig())
    found = with_balance(teacher, tiny_synthesis(method=method, coefficients=AUTOMATIC), 0).coefficients
    assert found.feature == CoefficientsConfig().feature and not found.automatic


def test_numbers_are_found_ones_else_defaults():
    found = with_numbers(settings(**AUTOMATIC), {"tv": 0.5}).coefficients
    assert (found.tv, found.feature) == (0.5, CoefficientsConfig().feature)


@pytest.mark.long
def test_another_process_chooses_the_same_numbers():
    code = (
        "import json\nfrom dataclasses import asdict\nfrom tests.synthesis.test_balance import *\n"
        "print(json.dumps(asdict(with_balance(tiny_teacher(), settings(**AUTOMATIC), 5).coefficients)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == asdict(with_balance(tiny_teacher(), settings(**AUTOMATIC), 5).coefficients)


def test_images_of_automatic_coefficients_are_those_of_the_same_numbers():
    given = {"iterations": 3, "batch_size": 8, "precision": "fp32"}
    teacher, numbers = tiny_teacher(), {"feature": 10.0, "tv": 2.5e-5}
    chosen = with_balance(teacher, tiny_synthesis(**given, method="deep_inversion", coefficients=AUTOMATIC), 4)
    named = {name: getattr(chosen.coefficients, name) for name in AUTOMATIC}
    assert named != numbers
    made = [
        raydream.synthesize(teacher, 8, seed=4, synthesis={**given, "coefficients": each}).images
        for each in (AUTOMATIC, named, numbers, {"l2": CoefficientsConfig().l2})
    ]
    assert np.array_equal(made[0], made[1]) and np.array_equal(made[2], made[3])
    assert not np.array_equal(made[0], made[2])


@pytest.mark.parametrize("value", ["automatic", "", -1, None, float("nan")])
def test_other_words_and_numbers_are_refused(value):
    with pytest.raises(InputError, match=r"^synthesis\.coefficients\.feature = ") as refused:
        raydream.synthesize(tiny_teacher(), 8, synthesis={"coefficients": {"feature": value}})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["dafl", "fast", "noisy"])
def test_methods_with_a_generator_network_need_a_number(method):
    with pytest.raises(InputError, match=f"a number with method {method}"):
        raydream.synthesize(tiny_teacher(), 8, method, synthesis={"coefficients": {"feature": "auto"}})


def test_only_measured_terms_can_be_automatic():
    with pytest.raises(InputError, match=r"synthesis\.coefficients\.classification"):
        raydream.synthesize(tiny_teacher(), 8, synthesis={"coefficients": {"classification": "auto"}})


@pytest.mark.parametrize(
    ("given", "automatic"),
    [
        ({}, {"feature", "tv"}),
        ({"synthesis": {"method": "deep_inversion", "iterations": 5}}, {"feature", "tv"}),
        ({"synthesis": {"method": "deepdream"}}, {"tv"}),
        ({"synthesis": {"method": "noise"}}, set()),
        ({"synthesis": {"method": "fast"}}, set()),
        ({"synthesis": {"method": "unknown"}}, set()),
        ({"synthesis": {"method": ["noise"]}}, set()),
        ({"synthesis": {"coefficients": {"l2": 0.0}}}, set()),
        ({"synthesis": {"coefficients": {}}}, {"feature", "tv"}),
        ({"synthesis": "mistaken"}, set()),
    ],
)
def test_coefficients_are_automatic_where_none_is_named(given, automatic):
    expected = {"synthesis": {"coefficients": dict.fromkeys(automatic, "auto")}} if automatic else {}
    assert default_coefficients(given) == expected
    assert default_coefficients_if_made({**given, "images": "runs/images"}) == {}
    assert default_coefficients_if_made({**given, "images": "runs/images", "additions": {"rounds": 2}}) == expected
    assert default_coefficients_if_made({**given, "new_images": 64}) == expected


@pytest.mark.parametrize("name", ["synthesize", "distill", "transfer", "prune", "quantize", "extend"])
def test_each_job_that_makes_images_has_that_default(name):
    entry = NAMES[name]
    kind, defaults = imported(entry.config), imported(entry.defaults)
    words = ["--teacher.network", "digits", *(["--steps", "[{classes: [10]}]"] if name == "extend" else [])]
    assert set(parse(kind, name, words, defaults).config.synthesis.coefficients.automatic) == {"feature", "tv"}
    named = parse(kind, name, [*words, "--synthesis.coefficients.l2", "0"], defaults).config
    assert named.synthesis.coefficients == CoefficientsConfig(l2=0.0)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_where_no_images_are_made_no_coefficient_is_chosen(method):
    chosen = default_coefficients_if_inverted({"methods": [method]})
    assert bool(chosen) == (CONTINUAL_METHODS[method].images == "made")


def test_the_python_api_has_that_default():
    brief = {"batch_size": 8, "iterations": 3, "jitter": 0, "precision": "fp32"}
    made = [
        raydream.synthesize(tiny_teacher(), 8, synthesis={**brief, **named}).images
        for named in ({}, {"coefficients": AUTOMATIC}, {"coefficients": {"feature": 10.0}})
    ]
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
