from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from raydream.errors import SynthesisError
from raydream.seeds import derive_seed
from raydream.synthesis import Request
from raydream.synthesis.inversion import Inversion
from raydream.synthesis.synthesizer import MAX_RESTARTS
from raydream.teachers.teacher import Teacher
from tests.tiny import tiny_synthesis, tiny_targets, tiny_teacher


class Poisoned(nn.Module):
    """A network whose passes of the given numbers come out as `poison`; copies of it count on together.

    Passes of single images do not count, as the inversion makes one to see how much work it is.
    """

    def __init__(self, network: nn.Module, bad: range, poison: float) -> None:
        super().__init__()
        self.network = network
        calls: list[float] = []
        self.count = lambda: calls.append(poison if len(calls) in bad else 1.0)  # copies share what a lambda holds
        self.calls = lambda: calls

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            return self.network(x)
        self.count()
        return self.network(x) * self.calls()[-1]


def poisoned(bad: range, poison: float = float("nan")) -> Teacher:
    teacher = tiny_teacher()
    return replace(teacher, network=Poisoned(teacher.network, bad, poison).eval())


def make(teacher: Teacher, seed: int = 7, **changes: object):
    return Inversion(teacher, tiny_synthesis(method="deep_inversion", **changes)).synthesize(
        Request(tiny_targets(), seed)
    )


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_teacher_that_always_diverges_is_given_up_after_the_last_restart(poison):
    teacher = poisoned(range(10**6), poison)
    with pytest.raises(SynthesisError, match=r"diverged 4 times.*learning_rate \(0\.05\)"):
        make(teacher)
    assert MAX_RESTARTS == 3 and len(teacher.network.calls()) == 4  # the first update already tells


def test_a_learning_rate_that_overflows_is_given_up():
    with pytest.raises(SynthesisError, match="learning_rate"):
        make(tiny_teacher(), learning_rate=1e37, clip=False)


def test_no_hook_is_left_after_giving_up():
    teacher = poisoned(range(10**6))
    with pytest.raises(SynthesisError):
        make(teacher)
    assert not any(module._forward_pre_hooks for module in teacher.network.modules())


@pytest.mark.parametrize("restarts", [1, 2, 3])
def test_a_passing_divergence_starts_the_batch_anew_from_another_seed(restarts):
    made = make(poisoned(range(restarts)))
    assert made.restarts == restarts
    fresh = make(tiny_teacher(), derive_seed(7, "restart", restarts))
    assert torch.equal(made.images, fresh.images) and made.losses == fresh.losses
    assert not torch.equal(made.images, make(tiny_teacher()).images)


@pytest.mark.parametrize("iteration", [1, 22, 43, 44])
def test_a_divergence_at_any_update_is_noticed(iteration):
    made = make(poisoned(range(iteration, iteration + 1)), iterations=45)
    assert made.restarts == 1
    assert all(torch.tensor(value).isfinite() for value in made.losses.values())
    assert all(0 <= update < 45 for points in made.curve.values() for update, _ in points)
    assert [update for update, _ in made.curve["tv"]].count(0) == 1  # nothing of the first attempt


@pytest.mark.parametrize("iteration", [0, 5, 6, 11])
def test_a_divergence_in_any_stage_starts_the_batch_anew_at_the_first(iteration):
    stages = ({"size": (4, 4)}, {})
    made = make(poisoned(range(iteration, iteration + 1)), stages=stages)
    fresh = make(tiny_teacher(), derive_seed(7, "restart", 1), stages=stages)
    assert made.restarts == 1 and torch.equal(made.images, fresh.images) and made.curve == fresh.curve


def test_a_synthesizer_that_gave_up_can_go_on():
    teacher = poisoned(range(4))
    synthesizer = Inversion(teacher, tiny_synthesis(method="deep_inversion"))
    with pytest.raises(SynthesisError):
        synthesizer.synthesize(Request(tiny_targets(), 7))
    made = synthesizer.synthesize(Request(tiny_targets(), 7))
    assert made.restarts == 0 and torch.equal(made.images, make(tiny_teacher()).images)
