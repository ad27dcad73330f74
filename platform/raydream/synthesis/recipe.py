"""The recipe of a batch: a short text that two batches share if they are equal to the bit."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from raydream.compute import arithmetic, choose_dtype
from raydream.config import SynthesisConfig
from raydream.config.synthesis import ADVERSARIES
from raydream.engine_version import ENGINE_VERSION
from raydream.store.learned import LearnedState
from raydream.store.records import ImageBatch, Order
from raydream.teachers.teacher import Teacher, fingerprint, fingerprint_of

ELSEWHERE = (
    *("method", "coefficients", "targets", "generator", "start", "competition_temperature"),
    *("precision", "compile", "chunk_size"),
)
"""settings that enter a recipe by their effect, or that have none without competition and learned state"""


def recipe_of(
    teacher: Teacher, config: SynthesisConfig, order: Order, source: ImageBatch | None, way: Mapping[str, object]
) -> str:
    """Return 16 hexadecimal digits over all that determines a batch without competition and learned state.

    They cover the teacher's weights, network, input and normalization; the terms of the objective with their
    coefficients, and all other settings of an inversion; targets, seed, and the images that it starts from; and the
    arithmetic: versions of the engine and of torch, kind of processor, type of numbers, threads, on a GPU also its
    driver, cuDNN, TF32 and determinism; whether the networks are compiled, and the number of images per pass.
    DeepInversion and an adaptive batch without a student have the same recipe. The recipe names neither the run nor the
    generator.

    Args:
        teacher: the teacher, on the device that computes.
        source: images to start from, or None for noise.
        way: the decisions of this process, see `Engine.way`.
    """
    device, described = teacher.device, teacher.config
    arguments = json.dumps(described.arguments)  # text, as the order of a nested dictionary can make a difference
    content = {
        "engine": ENGINE_VERSION,
        "teacher": [teacher.fingerprint, described.network, arguments, described.input_shape],
        "normalisation": [described.mean, described.std],
        "settings": {name: value for name, value in asdict(config).items() if name not in ELSEWHERE},
        "terms": {name: getattr(config.coefficients, name) for name in config.terms if name not in ADVERSARIES},
        "seed": order.seed,
        "targets": (order.targets if source is None else source.targets).tolist(),
        "source": None if source is None else _pixels_of(source),
        "numbers": str(choose_dtype(config.precision, device)),
        "way": way,
        **arithmetic(device),
    }
    return fingerprint_of([json.dumps(content, sort_keys=True, default=str).encode()])


def key_of(
    run: str, teacher: Teacher, config: SynthesisConfig, order: Order, source: ImageBatch | None, learned: LearnedState
) -> str:
    """Return 16 hexadecimal digits over all that its run decides about a batch, beside the student.

    Unlike a recipe it says nothing of the machine, as another one may continue a batch, and it names the run.
    """
    described = teacher.config
    content = {
        "engine": ENGINE_VERSION,
        "run": run,
        "batch": [str(order.batch), order.seed, order.targets.tolist()],
        "teacher": [teacher.fingerprint, described.network, described.arguments, described.input_shape],
        "normalisation": [described.mean, described.std],
        "settings": asdict(config),
        "source": None if source is None else [_pixels_of(source), source.targets.tolist()],
        "learned": fingerprint(learned.state),
    }
    return fingerprint_of([json.dumps(content, sort_keys=True, default=str).encode()])


def _pixels_of(source: ImageBatch) -> str:
    return hashlib.blake2b(source.images.tobytes(), digest_size=8).hexdigest()
