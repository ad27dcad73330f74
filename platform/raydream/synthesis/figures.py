"""Figures of a set of images, read shard by shard without pixels, so the set may be larger than memory."""

from dataclasses import dataclass

import numpy as np

from raydream.store.records import BatchId
from raydream.store.shards import ShardStore


@dataclass(frozen=True)
class SetFigures:
    """The figures that describe a set of images.

    Attributes:
        images, batches: number of each.
        images_per_class: int64 [K], number of images made for each class.
        target_share: share in [0, 1] of the images that the teacher classifies as their target, as they are stored.
        losses: each term before its coefficient at the batches' last updates, mean over all images.
        restarts: number of times that batches diverged and were started from another seed.
        teacher: fingerprint of the weights of the first batch's teacher.
    """

    images: int
    batches: int
    images_per_class: np.ndarray
    target_share: float
    losses: dict[str, float]
    restarts: int
    teacher: str


def figures_of(store: ShardStore, batches: list[BatchId], classes: int) -> SetFigures:
    """Compute the figures of committed batches, reading only their targets and descriptions.

    Args:
        batches: one or more, of one method.
        classes: K, number of the teacher's classes.

    Raises:
        ShardError: a shard is missing or damaged.
        OSError: storage keeps failing.
    """
    counts, sizes, made = np.zeros(classes, np.int64), [], []
    for batch in batches:
        targets = store.targets(batch)
        counts += np.bincount(targets, minlength=classes)
        sizes.append(len(targets))
        made.append(store.provenance(batch))
    return SetFigures(
        images=sum(sizes),
        batches=len(sizes),
        images_per_class=counts,
        target_share=float(np.average([each.target_share for each in made], weights=sizes)),
        losses={
            name: float(np.average([each.losses[name] for each in made], weights=sizes)) for name in made[0].losses
        },
        restarts=sum(each.restarts for each in made),
        teacher=made[0].teacher,
    )
