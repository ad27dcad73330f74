"""Samplers: choose the held images that a distillation step sees."""

import numpy as np

from raydream.seeds import derive_seed


def uniform_draw(run_seed: int, step: int, images: int, draw: int) -> np.ndarray:
    """Draw the positions of one step's images: uniform, with as few repeats as possible.

    Depends only on its arguments, so that a step repeated after a restart sees the same images.

    Args:
        run_seed: of the run.
        step: the distillation step.
        images: number held, >= 1.
        draw: number to draw, >= 1; if it exceeds `images`, each image comes as often as any other, or once more.

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
    """Return the positions of each step's images in a pass over a set: every image once, in that pass's order.

    Depends only on its arguments, as `uniform_draw`.

    Args:
        run_seed: of the run.
        epoch: the pass, from 0.
        images: number in the set, >= steps.
        steps: number in the pass, >= 1; their sizes differ by one at most.

    Returns:
        for each step int64, each in [0, images).
    """
    random = np.random.default_rng(derive_seed(run_seed, "order", epoch))
    return np.array_split(random.permutation(images), steps)
