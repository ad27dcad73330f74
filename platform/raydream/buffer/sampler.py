"""Samplers: which of the images held does a distillation step see?"""

import numpy as np

from raydream.seeds import derive_seed


def uniform_draw(run_seed: int, step: int, images: int, draw: int) -> np.ndarray:
    """Positions of the images of one step: uniform, with as few repeats as can be.

    Depends on nothing but its arguments, so that a step repeated after a restart sees the same images.

    Args:
        run_seed: of the run.
        step: the distillation step.
        images: how many are held, >= 1.
        draw: how many to draw, >= 1; where it exceeds `images`, each image comes as often as any other, or once more.

    Returns:
        int64 [draw], each in [0, images).
    """
    random = np.random.default_rng(derive_seed(run_seed, "draw", step))
    whole, rest = divmod(draw, images)
    parts = [random.permutation(images) for _ in range(whole)]
    if rest:
        parts.append(random.choice(images, rest, replace=False))
    return np.concatenate(parts).astype(np.int64)


def permuted_epoch(run_seed: int, epoch: int, images: int, steps: int) -> list[np.ndarray]:
    """Positions of the images of each step of a pass over a set: every image once, in an order of that pass.

    Depends on nothing but its arguments, as `uniform_draw`.

    Args:
        run_seed: of the run.
        epoch: the pass, from 0.
        images: in the set, >= steps.
        steps: of the pass, >= 1; their sizes differ by one at most.

    Returns:
        for each step int64, each in [0, images).
    """
    random = np.random.default_rng(derive_seed(run_seed, "order", epoch))
    return np.array_split(random.permutation(images), steps)
