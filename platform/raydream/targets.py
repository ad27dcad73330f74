"""The target classes of a batch's images."""

import numpy as np

from raydream.config import TargetsConfig
from raydream.errors import InputError
from raydream.seeds import derive_seed


def choose_targets(config: TargetsConfig, classes: int, first: int, count: int, seed: int) -> np.ndarray:
    """Choose the targets of a batch.

    Args:
        classes: K.
        first: number of images before this batch; balanced and listed targets continue from the last batch.
        count: N.
        seed: of the run; drawn targets depend on it and on `first`.

    Returns:
        int64 [N], each in [0, K).
    """
    in_turn = first + np.arange(count, dtype=np.int64)
    if config.rule == "balanced":
        return in_turn % classes
    if config.rule == "listed":
        return np.array(config.classes, np.int64)[in_turn % len(config.classes)]
    random = np.random.default_rng(derive_seed(seed, "targets", first))
    weights = np.array(config.weights or [1.0] * classes)
    return random.choice(classes, size=count, p=weights / weights.sum()).astype(np.int64)


def check_targets(config: TargetsConfig, classes: int) -> None:
    """Check that targets are existing classes; raises InputError."""
    if config.classes and max(config.classes) >= classes:
        allowed = f"class indices from 0 to {classes - 1} (teacher.classes)"
        raise InputError("synthesis.targets.classes", list(config.classes), allowed, "leave out the others")
    if config.weights and len(config.weights) != classes:
        allowed = f"{classes} numbers, one per class (teacher.classes)"
        raise InputError("synthesis.targets.weights", list(config.weights), allowed, "give one for each")
