"""What confusion matrices say."""

import numpy as np
import pytest
import torch

from raydream.applications.continual.measures import Accuracies, accuracies, confusion_matrix, forgetting
from raydream.data import Split
from raydream.evaluation.accuracy import accuracy
from tests.tiny import tiny_teacher


def test_accuracies_of_a_matrix_counted_by_hand():
    confusion = np.array([[8, 2, 0], [0, 5, 5], [10, 0, 10]])
    told = accuracies(confusion, [2, 1])
    assert told.groups == (13 / 20, 0.5) and told.average == pytest.approx((13 / 20 + 0.5) / 2)
    assert (told.all, told.old, told.new) == (23 / 40, 13 / 20, 0.5)
    three = accuracies(confusion, [1, 1, 1])
    assert three.old == 13 / 20 and three.groups == (0.8, 0.5, 0.5)
    before = accuracies(confusion[:2, :2], [2])
    assert before.old is None and before.new == before.all == 13 / 15


def groups(*shares: float) -> Accuracies:
    return Accuracies(0.0, None, shares[-1], shares, 0.0)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([groups(1.0), groups(0.7, 0.9)], 0.3),
        ([groups(0.8), groups(0.9, 0.9), groups(0.5, 0.7, 0.9)], (0.4 + 0.2) / 2),
        ([groups(0.8), groups(0.9, 1.0)], -0.1),
    ],
)
def test_forgetting_is_the_fall_from_the_best(steps, expected):
    assert forgetting(steps) == pytest.approx(expected)


def test_a_confusion_matrix_counts_what_accuracy_counts():
    teacher, random = tiny_teacher(), np.random.default_rng(0)
    images = random.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    labels = random.integers(0, 10, 60)
    counts = confusion_matrix(teacher.network, teacher.normalization, Split(images, labels), 10)
    assert (counts.sum(1) == np.bincount(labels, minlength=10)).all()
    named = teacher.logits(torch.from_numpy(images)).argmax(1).numpy()
    assert (counts.sum(0) == np.bincount(named, minlength=10)).all()
    assert np.trace(counts) / 60 == accuracy(teacher.network, teacher.normalization, images, labels)
