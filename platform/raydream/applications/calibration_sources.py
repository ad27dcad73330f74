"""Images to calibrate on, by where they come from: synthesized ones, and those that people use instead."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from raydream.config import SynthesisConfig
from raydream.schedule import even_sizes
from raydream.seeds import derive_seed, generator
from raydream.store.records import BatchId, Order
from raydream.store.shards import ShardStore
from raydream.synthesis.batch import BatchMaker
from raydream.targets import choose_targets
from raydream.teachers.teacher import Teacher

Method = Literal["deep_inversion", "deepdream", "noise"]
"""that neither compete nor learn"""


def noise_images(teacher: Teacher, count: int, seed: int) -> np.ndarray:
    """uint8 [N,C,H,W] of N(0, 1) as the network sees it, each pixel and channel for itself; clipped to pixel values."""
    x = torch.randn(count, *teacher.config.input_shape, generator=generator(seed, "calibration noise"))
    return teacher.normalization.quantize(x.to(teacher.device)).cpu().numpy()


def synthesized_images(
    teacher: Teacher,
    synthesis: SynthesisConfig,
    method: Method,
    count: int,
    seed: int,
    store: ShardStore | None = None,
    on_work: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Images that one method makes of a teacher, as `synthesis` says otherwise: uint8 [N,C,H,W].

    Args:
        method: of making them; noise is what minimizes the class loss alone, not `noise_images`.
        count: images, in batches as even as they can be, of at most synthesis.batch_size.
        store: where batches are committed, and found where they are; None: nowhere.
        on_work: called now and then while images are made.

    Raises:
        SynthesisError: see `Synthesizer.synthesize`.
        ShardError: a committed batch is damaged.
    """
    synthesis = replace(synthesis, method=method)
    sizes, first, made = even_sizes(count, -(-count // synthesis.batch_size)), 0, []
    maker = BatchMaker("calibration", teacher, synthesis, batches=len(sizes))
    for index, size in enumerate(sizes):
        batch = BatchId(0, index)
        if store is not None and store.has(batch):
            made.append(store.read(batch).images)
        else:
            targets = choose_targets(synthesis.targets, teacher.config.classes, first, size, seed)
            order = Order(batch, targets, derive_seed(seed, "synthesis", index, 0))
            found = maker.make(order, None, None, lambda share: on_work()).batch
            if store is not None:
                store.write(found)
            made.append(found.images)
        first += size
    return np.concatenate(made)
