"""Losses of class-incremental learning, each against a slow reference, an invariance and its gradient."""

import math

import numpy as np
import pytest
import torch

from raydream.losses.continual import (
    balanced_classification,
    balanced_logits,
    binary_distillation,
    classification,
    head_distance,
    local_classification,
    padded_divergence,
    renormalized_divergence,
)

N, OLD, ALL = 6, 4, 7


def values(seed: int, *shape: int, scale: float = 2.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape) * scale)


OLD_LOGITS, LOGITS = values(0, N, OLD), values(1, N, ALL)
NEW_LABELS, LABELS = torch.tensor([4, 5, 6, 4, 5, 6]), torch.tensor([0, 3, 2, 4, 6, 5])


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in row]
    return [value / math.fsum(exponentials) for value in exponentials]


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def mean(terms: list[float]) -> float:
    return math.fsum(terms) / len(terms)


def rows(*tensors: torch.Tensor):
    return zip(*(tensor.tolist() for tensor in tensors), strict=True)


def slow_padded() -> float:
    padding = [0.0] * (ALL - OLD)
    return mean([kl(softmax(old) + padding, softmax(new)) for old, new in rows(OLD_LOGITS, LOGITS)])


def slow_renormalized() -> float:
    def kept(row: list[float]) -> list[float]:
        probabilities = softmax(row)[:OLD]
        return [value / math.fsum(probabilities) for value in probabilities]

    return mean([kl(softmax(old), kept(new)) for old, new in rows(OLD_LOGITS, LOGITS)])


def slow_classification() -> float:
    return mean([-math.log(softmax(row)[label]) for row, label in rows(LOGITS, LABELS)])


def slow_binary() -> float:
    def one(old: list[float], row: list[float], label: int) -> float:
        told = [sigmoid(value) for value in old] + [float(index == label) for index in range(OLD, ALL)]
        said = [sigmoid(value) for value in row]
        return -math.fsum(t * math.log(s) + (1 - t) * math.log(1 - s) for t, s in zip(told, said, strict=True))

    return mean([one(*each) for each in rows(OLD_LOGITS, LOGITS, NEW_LABELS)])


def slow_local() -> float:
    return mean([-math.log(softmax(row[OLD:])[label - OLD]) for row, label in rows(LOGITS, NEW_LABELS)])


def slow_balanced() -> float:
    each = [-math.log(softmax(row)[label]) for row, label in rows(LOGITS, LABELS)]
    return OLD / ALL * mean(each[: N // 2]) + (1 - OLD / ALL) * mean(each[N // 2 :])


def slow_balanced_softmax() -> float:
    def one(row: list[float], label: int) -> float:
        often = [1 / OLD] * OLD + [1 / (ALL - OLD)] * (ALL - OLD)  # of a class, in a batch half of which is old
        weighed = [count * math.exp(value) for count, value in zip(often, row, strict=True)]
        return -math.log(weighed[label] / math.fsum(weighed))

    return mean([one(*each) for each in rows(LOGITS, LABELS)])


WEIGHT = values(4, OLD, 5)


def slow_head() -> float:
    def moved(old: list[float], new: list[float]) -> float:
        reads = [math.fsum(w * (a - b) for w, a, b in zip(row, new, old, strict=True)) for row in WEIGHT.tolist()]
        return 0.5 * math.fsum(read**2 for read in reads)

    return mean([moved(*each) for each in rows(values(2, N, 5), values(3, N, 5))])


TERMS = {
    # the function of what learns, where it is evaluated, and the slow reference
    "padded": (lambda x: padded_divergence(OLD_LOGITS, x), LOGITS, slow_padded),
    "renormalized": (lambda x: renormalized_divergence(OLD_LOGITS, x), LOGITS, slow_renormalized),
    "classification": (lambda x: classification(x, LABELS), LOGITS, slow_classification),
    "binary": (lambda x: binary_distillation(OLD_LOGITS, x, NEW_LABELS), LOGITS, slow_binary),
    "local": (lambda x: local_classification(x, NEW_LABELS, OLD), LOGITS, slow_local),
    "balanced": (lambda x: balanced_classification(x, LABELS, OLD / ALL), LOGITS, slow_balanced),
    "balanced softmax": (lambda x: classification(balanced_logits(x, OLD), LABELS), LOGITS, slow_balanced_softmax),
    "head": (lambda x: head_distance(values(2, N, 5), x, WEIGHT), values(3, N, 5), slow_head),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_equals_its_slow_reference(name):
    term, at, slow = TERMS[name]
    assert term(at).item() == pytest.approx(slow(), rel=1e-12)


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_right(name):
    term, at, _ = TERMS[name]
    assert torch.autograd.gradcheck(term, (at.clone().requires_grad_(),))


@pytest.mark.parametrize("name", ["padded", "renormalized", "classification", "local", "balanced", "balanced softmax"])
def test_a_constant_added_to_an_images_logits_changes_nothing(name):
    term, at, _ = TERMS[name]
    torch.testing.assert_close(term(at + 100 * values(5, N, 1)), term(at))


@pytest.mark.parametrize("name", ["padded", "renormalized"])
def test_a_constant_added_to_the_old_logits_changes_nothing(name):
    function = {"padded": padded_divergence, "renormalized": renormalized_divergence}[name]
    torch.testing.assert_close(function(OLD_LOGITS + 100 * values(5, N, 1), LOGITS), function(OLD_LOGITS, LOGITS))


def test_the_third_term_does_not_look_at_new_outputs_and_the_first_one_does():
    other = torch.cat([LOGITS[:, :OLD], values(6, N, ALL - OLD)], dim=1)
    torch.testing.assert_close(renormalized_divergence(OLD_LOGITS, other), renormalized_divergence(OLD_LOGITS, LOGITS))
    assert abs(padded_divergence(OLD_LOGITS, other) - padded_divergence(OLD_LOGITS, LOGITS)) > 0.01


def test_the_first_term_is_zero_where_the_old_outputs_stay_and_new_classes_get_nothing():
    same = torch.cat([OLD_LOGITS, torch.full((N, ALL - OLD), -1e4, dtype=torch.float64)], dim=1)
    assert padded_divergence(OLD_LOGITS, same).item() == pytest.approx(0.0, abs=1e-14)
    shared = torch.cat([OLD_LOGITS, OLD_LOGITS.logsumexp(1, keepdim=True)], dim=1)  # the new class gets one half
    assert padded_divergence(OLD_LOGITS, shared).item() == pytest.approx(math.log(2), rel=1e-12)


def test_a_balanced_softmax_of_as_many_old_as_new_classes_is_a_softmax():
    few = LOGITS[:, : 2 * (ALL - OLD)]
    torch.testing.assert_close(balanced_logits(few, ALL - OLD).softmax(1), few.softmax(1))


def test_local_classification_leaves_old_outputs_alone():
    logits = LOGITS.clone().requires_grad_()
    local_classification(logits, NEW_LABELS, OLD).backward()
    assert (logits.grad[:, :OLD] == 0).all() and (logits.grad[:, OLD:] != 0).all()


def test_features_may_move_where_no_old_class_looks():
    weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    old = torch.zeros(2, 3)
    assert head_distance(old, torch.tensor([[0.0, 0.0, 9.0]] * 2), weight).item() == 0.0
    assert head_distance(old, torch.tensor([[3.0, 4.0, 9.0]] * 2), weight).item() == 12.5


def test_underflow_is_survived():
    sure = torch.tensor([[1000.0, 0.0]])
    assert padded_divergence(sure, torch.tensor([[0.0, 1000.0, 0.0]])).item() == pytest.approx(1000.0)
    assert binary_distillation(sure, torch.tensor([[-1000.0, 0.0, 0.0]]), torch.tensor([2])).isfinite()
