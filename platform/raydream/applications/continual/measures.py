"""Measures of retained old classes and learned new ones, all computed from confusion matrices.

A confusion matrix [K,K] counts images: rows are labels, columns predictions. Groups are the classes that
joined together: the teacher's first, then those of each step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from raydream.data.splits import Split
from raydream.evaluation.accuracy import logits_of
from raydream.teachers.normalization import Normalization


def confusion_matrix(network: nn.Module, normalization: Normalization, split: Split, classes: int) -> np.ndarray:
    """Compute a network's confusion matrix, int64 [K,K], on labeled images.

    Args:
        classes: K; labels are below it.
    """
    named = logits_of(network, normalization, split.images).argmax(1)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (split.labels, named), 1)
    return counts


@dataclass(frozen=True)
class Accuracies:
    """Accuracies after a step: shares in [0, 1].

    Attributes:
        all: of all images.
        old: of images of classes that were known before the step; None before the first step, when none were.
        new: of images of the step's classes.
        groups: of each group.
        average: mean over the groups, as Table 7 averages over data sets.
    """

    all: float
    old: float | None
    new: float
    groups: tuple[float, ...]
    average: float


def accuracies(confusion: np.ndarray, sizes: Sequence[int]) -> Accuracies:
    """Compute the accuracies from a confusion matrix.

    Args:
        sizes: classes of each group that the network knows; their sum is K. Each has an image.
    """
    right, images = np.diag(confusion), confusion.sum(1)
    ends = np.cumsum(sizes)
    groups = tuple(
        float(right[end - size : end].sum() / images[end - size : end].sum())
        for size, end in zip(sizes, ends, strict=True)
    )
    known = int(ends[-1]) - sizes[-1]
    old = float(right[:known].sum() / images[:known].sum()) if known else None
    return Accuracies(float(right.sum() / images.sum()), old, groups[-1], groups, float(np.mean(groups)))


def forgetting(steps: Sequence[Accuracies]) -> float:
    """Compute the drop of a group's accuracy from its best, mean over all groups but the last.

    Args:
        steps: from the teacher's own to the last, two at least.

    Returns:
        in [-1, 1]: below 0 where old classes became better (Chaudhry et al., ECCV 2018, without the last step in the
        best, so that it may).
    """
    last = steps[-1].groups
    falls = [max(step.groups[group] for step in steps[group:-1]) - last[group] for group in range(len(last) - 1)]
    return float(np.mean(falls))
