"""Images to calibrate on, by source: synthesized ones, and common substitutes."""

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

CalibrationMethod = Literal["deep_inversion", "deepdream", "noise"]
"""methods that neither compete nor learn"""


def noise_images(teacher: Teacher, count: int, seed: int) -> np.ndarray:
    """Draw uint8 [N,C,H,W] from N(0, 1) in the network's input units, independent values clipped to pixel values."""
    x = torch.randn(count, *teacher.config.input_shape, generator=generator(seed, "calibration noise"))
    return teacher.normalization.quantize(x.to(teacher.device)).cpu().numpy()


def synthesized_images(
    teacher: Teacher,
    synthesis: SynthesisConfig,
    method: CalibrationMethod,
    count: int,
    seed: int,
    store: ShardStore | None = None,
    on_work: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Make images of a teacher by one method, with all other settings of `synthesis`: uint8 [N,C,H,W].

    Args:
        method: the synthesis method; noise minimizes the class loss alone, and is not `noise_images`.
        count: number of images, in batches as even as possible, of at most synthesis.batch_size.
        store: the store in which batches are committed and looked up; None: no store.
        on_work: called repeatedly while images are made.

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
