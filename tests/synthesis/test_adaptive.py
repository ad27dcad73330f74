import math

import pytest
import torch
from torch import Tensor, nn

from raydream.synthesis import SYNTHESIZERS, Request, Synthesis
from raydream.teachers.teacher import Teacher
from tests.tiny import tiny_network, tiny_student, tiny_synthesis, tiny_targets, tiny_teacher


def make(method: str, student: nn.Module | None, competition: float = 500.0, teacher: Teacher | None = None, **changes):
    settings = {"iterations": 30, "learning_rate": 0.08, "coefficients": {"competition": competition}}
    config = tiny_synthesis(method=method, **settings, **changes)
    synthesizer = SYNTHESIZERS[method](teacher or tiny_teacher(), config)
    return synthesizer.synthesize(Request(tiny_targets(), 3, student))


def disagreement(made: Synthesis, student: nn.Module) -> float:
    """1 - JS at temperature 3 on the finished images, from probabilities."""
    teacher = tiny_teacher()

    def probabilities(logits: Tensor) -> Tensor:
        return torch.softmax(logits.double() / 3.0, 1)

    p = probabilities(teacher.logits(made.images))
    with torch.no_grad():
        q = probabilities(student(teacher.normalization(made.images)))
    m = (p + q) / 2
    return 1 - float((0.5 * p * (p / m).log() + 0.5 * q * (q / m).log()).sum(1).mean())


def test_competition_finds_images_on_which_the_student_disagrees():
    student = tiny_student()
    without, with_it = make("adaptive", student, 0.0), make("adaptive", student)
    assert not torch.equal(without.images, with_it.images)
    assert disagreement(with_it, student) < disagreement(without, student) - 0.01


def test_the_competition_told_is_that_of_the_last_update():
    made = make("adaptive", tiny_student())
    assert 1 - math.log(2) <= made.losses["competition"] <= 1.0
    curve = [value for _, value in made.curve["competition"]]
    assert curve[-1] == made.losses["competition"] < curve[0]


def test_without_a_student_it_is_deep_inversion():
    adaptive, plain = make("adaptive", None), make("deep_inversion", None)
    assert torch.equal(adaptive.images, plain.images)
    assert (adaptive.losses, adaptive.distances) == (plain.losses, plain.distances)


def test_without_weight_the_student_is_not_looked_at():
    class Untouchable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("somebody asked the student")

    adaptive, plain = make("adaptive", Untouchable(), 0.0), make("deep_inversion", None)
    assert torch.equal(adaptive.images, plain.images) and "competition" not in adaptive.losses


@pytest.mark.parametrize("method", ["noise", "deepdream", "deep_inversion"])
def test_other_methods_do_not_look_at_the_student(method):
    assert torch.equal(make(method, tiny_student()).images, make(method, None).images)


def test_another_student_gives_other_images():
    assert not torch.equal(make("adaptive", tiny_student(1)).images, make("adaptive", tiny_student(2)).images)


def test_both_networks_stay_as_they_were():
    teacher, student = tiny_teacher(), tiny_network(1).eval()  # a student whose weights would take gradients
    networks = (teacher.network, student)
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    make("adaptive", student, teacher=teacher)
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not any(module.training for module in network.modules())
        assert not any(module._forward_pre_hooks for module in network.modules())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_one_synthesizer_competes_with_one_student_after_the_other():
    config = tiny_synthesis(coefficients={"competition": 500.0})
    kept = SYNTHESIZERS["adaptive"](tiny_teacher(), config)
    for student in (None, tiny_student(1), tiny_student(2), None, tiny_student(1)):
        fresh = SYNTHESIZERS["adaptive"](tiny_teacher(), config)
        made, expected = (one.synthesize(Request(tiny_targets(), 3, student)) for one in (kept, fresh))
        assert torch.equal(made.images, expected.images)
        assert made.losses == expected.losses and made.curve == expected.curve


def test_a_student_that_learns_afterwards_changes_nothing_that_was_made_before():
    student = tiny_network(1).eval()
    synthesizer = SYNTHESIZERS["adaptive"](tiny_teacher(), tiny_synthesis(coefficients={"competition": 500.0}))
    first = synthesizer.synthesize(Request(tiny_targets(), 3, student))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    later = synthesizer.synthesize(Request(tiny_targets(), 3, student))
    again = synthesizer.synthesize(Request(tiny_targets(), 3, tiny_student(1)))
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, later.images)


def test_a_student_in_train_mode_competes_as_it_would_in_eval_mode():
    training, evaluating = tiny_network(1).train(), tiny_network(1).eval()
    assert torch.equal(make("adaptive", training).images, make("adaptive", evaluating).images)
    assert all(module.training for module in training.modules())


@pytest.mark.parametrize("chunk_size", [3, 8])
def test_chunks_compete_as_the_whole_batch_does(chunk_size):
    # Not to the bit: sums are taken in another order, and Adam's first steps make much of little.
    whole, chunked = make("adaptive", tiny_student()), make("adaptive", tiny_student(), chunk_size=chunk_size)
    assert chunked.losses == pytest.approx(whole.losses, rel=0.02)
    assert float((whole.images.int() - chunked.images.int()).abs().double().mean()) < 2.0
