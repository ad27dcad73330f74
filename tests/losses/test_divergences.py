import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydream.losses.divergences import competition, jensen_shannon, kl_divergence, masked_kl


def slow_softmax(row: list[float], temperature: float) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in row]
    return [value / math.fsum(exponentials) for value in exponentials]


def slow_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow_distillation(teacher: list[list[float]], student: list[list[float]], temperature: float) -> float:
    """Eq. 1: mean over the batch of KL(p_T || p_S), times T squared."""
    rows = [
        slow_kl(slow_softmax(t, temperature), slow_softmax(s, temperature))
        for t, s in zip(teacher, student, strict=True)
    ]
    return temperature**2 * math.fsum(rows) / len(rows)


def slow_jensen_shannon(teacher: list[float], student: list[float], temperature: float) -> float:
    """Eq. 8 for one image."""
    p, q = slow_softmax(teacher, temperature), slow_softmax(student, temperature)
    mean = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return 0.5 * slow_kl(p, mean) + 0.5 * slow_kl(q, mean)


def logits(seed: int, scale: float = 2.0, shape: tuple[int, int] = (6, 5)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape) * scale)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
def test_distillation_equals_a_slow_reference(temperature):
    teacher, student = logits(0), logits(1)
    expected = slow_distillation(teacher.tolist(), student.tolist(), temperature)
    assert kl_divergence(teacher, student, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_distillation_takes_the_teacher_as_the_first_argument():
    teacher, student = logits(0), logits(1)
    forward, backward = kl_divergence(teacher, student, 1.0), kl_divergence(student, teacher, 1.0)
    assert abs(forward - backward) > 0.01
    assert forward.item() == pytest.approx(slow_distillation(teacher.tolist(), student.tolist(), 1.0))


def test_distillation_is_zero_for_equal_outputs_and_positive_otherwise():
    teacher = logits(0)
    assert kl_divergence(teacher, teacher.clone(), 3.0).item() == 0.0
    assert kl_divergence(teacher, teacher + 1e-3 * logits(1), 3.0).item() > 0.0


def test_distillation_does_not_depend_on_a_constant_added_to_an_images_logits():
    teacher, student, offsets = logits(0), logits(1), 100 * logits(2, shape=(6, 1))
    expected = kl_divergence(teacher, student, 3.0)
    torch.testing.assert_close(kl_divergence(teacher + offsets, student - offsets, 3.0), expected)


def test_distillation_is_a_mean_over_the_batch():
    teacher, student = logits(0), logits(1)
    twice = kl_divergence(teacher.repeat(2, 1), student.repeat(2, 1), 3.0)
    torch.testing.assert_close(twice, kl_divergence(teacher, student, 3.0))


def test_the_gradient_keeps_its_size_at_high_temperature():
    teacher = logits(0)
    norms = []
    for temperature in (50.0, 500.0):
        student = logits(1).requires_grad_()
        kl_divergence(teacher, student, temperature).backward()
        norms.append(student.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_distillation_survives_logits_whose_probabilities_underflow():
    teacher = torch.tensor([[1000.0, 0.0]])
    student = torch.tensor([[0.0, 1000.0]], requires_grad=True)
    loss = kl_divergence(teacher, student, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(1000.0)
    assert student.grad.tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_jensen_shannon_equals_a_slow_reference(temperature):
    teacher, student = logits(0), logits(1)
    rows = zip(teacher.tolist(), student.tolist(), strict=True)
    expected = [slow_jensen_shannon(t, s, temperature) for t, s in rows]
    assert jensen_shannon(teacher, student, temperature).tolist() == pytest.approx(expected, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 30.0, 1e4]), st.sampled_from([0.1, 1.0, 3.0]))
def test_jensen_shannon_is_symmetric_and_within_0_and_ln_2(seed, scale, temperature):
    teacher, student = logits(seed, scale), logits(seed + 1, scale)
    distance = jensen_shannon(teacher, student, temperature)
    assert bool((distance >= -1e-12).all()) and bool((distance <= math.log(2) + 1e-12).all())
    torch.testing.assert_close(distance, jensen_shannon(student, teacher, temperature))


def test_jensen_shannon_is_zero_for_equal_and_ln_2_for_disjoint_outputs():
    sure = torch.tensor([[500.0, 0.0, 0.0], [0.0, 500.0, 0.0]], dtype=torch.float64)
    assert jensen_shannon(sure, sure.clone(), 1.0).tolist() == [0.0, 0.0]
    assert jensen_shannon(sure, sure.flip(0), 1.0).tolist() == pytest.approx([math.log(2)] * 2, rel=1e-14)


def test_competition_is_one_minus_the_mean_of_the_slow_jensen_shannon():
    teacher, student = logits(0), logits(1)
    rows = [slow_jensen_shannon(t, s, 3.0) for t, s in zip(teacher.tolist(), student.tolist(), strict=True)]
    expected = 1 - math.fsum(rows) / len(rows)
    assert competition(teacher, student, 3.0).item() == pytest.approx(expected, rel=1e-12)


def test_competition_is_1_in_agreement_and_1_minus_ln_2_in_full_disagreement():
    sure = torch.tensor([[500.0, 0.0], [0.0, 500.0]], dtype=torch.float64)
    assert competition(sure, sure.clone(), 1.0).item() == 1.0
    assert competition(sure, sure.flip(0), 1.0).item() == pytest.approx(1 - math.log(2), rel=1e-14)


@pytest.mark.parametrize("term", [kl_divergence, competition])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradients_of_both_arguments_are_right(term, temperature):
    arguments = (logits(0).requires_grad_(), logits(1).requires_grad_())
    assert torch.autograd.gradcheck(lambda teacher, student: term(teacher, student, temperature), arguments)


def test_masked_kl_equals_a_slow_reference():
    teacher, student = logits(0), logits(1)
    teacher[:3].copy_(student[:3] * 2.0)  # these agree
    expected, agreeing = 0.0, 0
    for t, s in zip(teacher.tolist(), student.tolist(), strict=True):
        if t.index(max(t)) == s.index(max(s)):
            expected -= slow_kl(slow_softmax(t, 1.0), slow_softmax(s, 1.0)) / len(teacher)
            agreeing += 1
    assert 3 <= agreeing < len(teacher) and expected < -0.01
    assert masked_kl(teacher, student).item() == pytest.approx(expected, rel=1e-12)


def test_masked_kl_leaves_images_alone_about_which_they_disagree():
    teacher, student = logits(0).requires_grad_(), logits(1)
    masked_kl(teacher, student).backward()
    agrees = teacher.argmax(1) == student.argmax(1)
    assert teacher.grad is not None
    assert torch.equal(teacher.grad.abs().sum(1) > 0, agrees) and not agrees.all()
    assert torch.autograd.gradcheck(masked_kl, (logits(0).requires_grad_(), logits(0, 1.0).requires_grad_()))
