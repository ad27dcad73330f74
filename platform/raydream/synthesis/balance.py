"""Coefficients that need no search: they follow from the lengths of the terms' gradients at noise."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from raydream.config import CoefficientsConfig, SynthesisConfig
from raydream.config.synthesis import ADVERSARIES
from raydream.losses.objective import TERMS
from raydream.networks.batch_norm import keeps_statistics
from raydream.synthesis.engine import Engine
from raydream.targets import choose_targets
from raydream.teachers.teacher import Teacher

CPU = torch.device("cpu")
RATIOS = {"feature": 3.0, "tv": 0.014}
"""length of a term's gradient at noise, after its coefficient, in lengths of the classification's: as the hand-set
coefficients of the CIFAR-10 ResNet-20 have it (feature 1, tv 1e-3, 256 images: 3.05 and 0.0139)"""
CHUNK = 32
"""images per pass through the network, which bounds the memory and leaves the result as it is"""


def own_terms(config: SynthesisConfig) -> list[str]:
    """Return the terms of a method that need no student."""
    return [name for name in config.terms if name not in ADVERSARIES]


def gradient_lengths(teacher: Teacher, config: SynthesisConfig, terms: Sequence[str], seed: int) -> dict[str, float]:
    """Measure the length of each term's gradient with respect to the pixels, before its coefficient, at noise.

    The batch has `config.batch_size` images, as the lengths depend on it in different ways: that of a mean over images
    falls with its root, and that of the total variation, a norm of the whole batch, does not.

    Args:
        config: says the targets and the number of images, and the terms' own settings.
        terms: of the configured method.
        seed: of noise and targets, at least 0.

    Returns:
        a length, at least 0, for each term.
    """
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(config.batch_size, *teacher.config.input_shape, generator=random).to(teacher.device)
    targets = torch.from_numpy(choose_targets(config.targets, teacher.config.classes, 0, config.batch_size, seed))
    targets = targets.to(teacher.device)
    if config.clip:
        images = images.clamp(*teacher.normalization.canvas().valid_range())
    plain = replace(config, stages=(), compile="off", chunk_size=min(config.chunk_size or CHUNK, CHUNK))
    lengths = {}
    for name in terms:
        only: dict[str, Any] = {each: 0.0 for each in TERMS if hasattr(config.coefficients, each)}
        alone = replace(plain, coefficients=CoefficientsConfig(**{**only, name: 1.0}))
        evaluation = Engine(teacher, alone, (name,), 1).gradient(None)(images, targets)
        lengths[name] = float(evaluation.gradient.norm())
    return lengths


def balanced(lengths: Mapping[str, float], classification: float) -> dict[str, float]:
    """Return coefficients by which the terms' gradients have the `RATIOS` to the classification's, in two digits.

    Two digits, as further ones would depend on the order in which a machine adds up.

    Args:
        lengths: of each term's gradient, before its coefficient.
        classification: coefficient of the classification; with 0, the others are chosen as for 1.

    Returns:
        a number > 0 by term; none for terms without a gradient, nor where the classification has none.
    """
    unit = lengths.get("classification", 0.0) * (classification or 1.0)
    wanted = {name: ratio * unit / lengths[name] for name, ratio in RATIOS.items() if lengths.get(name)}
    return {name: float(f"{value:.2g}") for name, value in wanted.items() if 0 < value < math.inf}


def with_numbers(config: SynthesisConfig, found: Mapping[str, float]) -> SynthesisConfig:
    """Return settings with a number in place of each coefficient that is `auto`: the found one, else the default."""
    default = CoefficientsConfig()
    numbers = {name: found.get(name, getattr(default, name)) for name in config.coefficients.automatic}
    return replace(config, coefficients=replace(config.coefficients, **numbers)) if numbers else config


def with_balance(teacher: Teacher, config: SynthesisConfig, seed: int) -> SynthesisConfig:
    """Return settings whose coefficients are all numbers; those that are `auto` follow from the teacher's gradients.

    They are measured on the CPU in fp32, whatever device the images are made on. The coefficient of a term that the
    method lacks, or that has no gradient, becomes its default.

    Args:
        seed: of the run, at least 0.
    """
    automatic = config.coefficients.automatic
    if not automatic:
        return config
    terms = [name for name in ("classification", *automatic) if name in own_terms(config)]
    if not keeps_statistics(teacher.network):  # no method that needs them is accepted later
        terms = [name for name in terms if name != "feature"]
    own = replace(teacher, network=copy.deepcopy(teacher.network)).to(CPU)
    lengths = gradient_lengths(own, replace(config, precision="fp32"), terms, seed)
    return with_numbers(config, balanced(lengths, config.coefficients.classification))
