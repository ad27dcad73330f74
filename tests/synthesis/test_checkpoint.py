"""A batch whose process dies at any update is continued by another to the same bits."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from raydream.errors import ShardError
from raydream.synthesis import SYNTHESIZERS, Request, Synthesis
from raydream.synthesis.checkpoint import Checkpoint, Record
from raydream.synthesis.synthesizer import Synthesizer
from raydream.teachers.teacher import Teacher
from tests.synthesis.test_restarts import poisoned
from tests.tiny import tiny_student, tiny_synthesis, tiny_targets, tiny_teacher

UPDATES = 24
STAGES = [{"size": (4, 4), "iterations": 9}, {"size": (6, 6), "iterations": 8, "jitter": 2}, {"iterations": 7}]
GENERATOR = {"latent": 8, "width": 4}

Settings = dict[str, object]
CASES: dict[str, Settings] = {
    "noise": {"method": "noise"},
    "deepdream": {"method": "deepdream", "flip": True},
    "deep_inversion": {"method": "deep_inversion", "decay": "cosine", "warm_up": 5},
    "stages": {"method": "deep_inversion", "stages": STAGES, "flip": True},
    "adaptive": {"method": "adaptive", "coefficients": {"competition": 500.0}},
    "dafl": {"method": "dafl", "generator": GENERATOR},
    "fast": {"method": "fast", "generator": GENERATOR},
    "noisy": {"method": "noisy", "generator": GENERATOR},
}


class Killed(Exception):
    pass


def synthesizer(settings: Settings, teacher: Teacher | None = None) -> Synthesizer:
    config = tiny_synthesis(iterations=UPDATES, **settings)
    made = SYNTHESIZERS[config.method](teacher or tiny_teacher(), config)
    if config.learns:  # a batch that is not the first
        made.synthesize(Request(tiny_targets(), 99))
    return made


def request(settings: Settings) -> Request:
    student = tiny_student() if settings["method"] in ("adaptive", "fast", "noisy") else None
    start = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return Request(tiny_targets(), 7, student, start if settings["method"] == "adaptive" else None)


def killed_at(kill: int, given: Request, made: Synthesizer) -> Checkpoint:
    """The checkpoint after so many updates of a process that dies there."""
    found: list[Checkpoint] = []

    def on_update(copied: Callable[[], Checkpoint]) -> None:
        checkpoint = copied()
        if checkpoint.record.updates == kill:
            found.append(checkpoint)
            raise Killed

    with pytest.raises(Killed):
        made.synthesize(replace(given, on_update=on_update))
    return found[0]


def assert_same(one: Synthesis, other: Synthesis) -> None:
    assert torch.equal(one.images, other.images)
    assert (one.losses, one.distances, one.curve) == (other.losses, other.distances, other.curve)
    assert one.restarts == other.restarts
    assert (one.targets is None) == (other.targets is None)
    assert one.targets is None or (other.targets is not None and torch.equal(one.targets, other.targets))


@pytest.mark.parametrize("case", CASES)
def test_a_batch_killed_at_any_update_is_continued_to_the_same_bits(case: str) -> None:
    settings, given = CASES[case], request(CASES[case])
    whole = synthesizer(settings)
    undisturbed = whole.synthesize(given)
    draw = random.Random(case)
    at_ends_of_stages = (9, 17) if case == "stages" else ()
    for first in (*at_ends_of_stages, draw.randrange(1, 20)):
        last = draw.randrange(20, UPDATES)
        checkpoint = killed_at(first, given, synthesizer(settings))
        checkpoint = killed_at(last, replace(given, checkpoint=checkpoint), synthesizer(settings))
        successor = synthesizer(settings)
        assert_same(successor.synthesize(replace(given, checkpoint=checkpoint)), undisturbed)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, successor.state_dict()[name]), name


def test_the_updates_before_a_checkpoint_are_not_made_again() -> None:
    settings, given, shares = CASES["stages"], request(CASES["stages"]), []
    checkpoint = killed_at(20, given, synthesizer(settings))
    synthesizer(settings).synthesize(replace(given, checkpoint=checkpoint, on_progress=shares.append))
    assert shares == [(done + 1) / UPDATES for done in range(20, UPDATES)]


def test_an_attempt_after_a_divergence_is_continued_as_that_attempt() -> None:
    settings: Settings = {"method": "deep_inversion"}
    given = request(settings)
    undisturbed = synthesizer(settings, poisoned(range(3, 4))).synthesize(given)
    kept: list[Checkpoint] = []
    synthesizer(settings, poisoned(range(3, 4))).synthesize(
        replace(given, on_update=lambda copied: kept.append(copied()))
    )
    checkpoint = next(each for each in kept if each.restarts == 1 and each.record.updates == 5)
    successor = synthesizer(settings, poisoned(range(0)))
    assert_same(successor.synthesize(replace(given, checkpoint=checkpoint)), undisturbed)
    assert undisturbed.restarts == 1


def test_a_continued_attempt_that_diverges_is_followed_by_a_fresh_one() -> None:
    settings: Settings = {"method": "deep_inversion"}
    given = request(settings)
    checkpoint = killed_at(5, given, synthesizer(settings))
    made = synthesizer(settings, poisoned(range(1))).synthesize(replace(given, checkpoint=checkpoint))
    fresh = synthesizer(settings, poisoned(range(1))).synthesize(given)
    assert made.restarts == 1 and torch.equal(made.images, fresh.images)


def changed(checkpoint: Checkpoint, harm: str) -> Checkpoint:
    tensors = dict(checkpoint.tensors)
    if harm == "missing":
        del tensors["adam.0.exp_avg"]
    elif harm == "shape":
        tensors["parameter.0"] = tensors["parameter.0"][:4]
    elif harm == "type":
        tensors["adam.0.exp_avg_sq"] = tensors["adam.0.exp_avg_sq"].double()
    elif harm == "random":
        tensors["random"] = torch.zeros_like(tensors["random"])
    elif harm == "short random":
        tensors["random"] = tensors["random"][:10]
    updates = {"none": 0, "all": UPDATES, "more": 10**9, "negative": -1}.get(harm, checkpoint.record.updates)
    return replace(checkpoint, tensors=tensors, record=Record(updates, {}, []))


@pytest.mark.parametrize(
    "harm", ["missing", "shape", "type", "random", "short random", "none", "all", "more", "negative"]
)
@pytest.mark.parametrize("case", ["deep_inversion", "fast"])
def test_a_checkpoint_of_something_else_is_refused(case: str, harm: str) -> None:
    settings, given = CASES[case], request(CASES[case])
    checkpoint = changed(killed_at(5, given, synthesizer(settings)), harm)
    with pytest.raises(ShardError, match="not one of this batch"):
        synthesizer(settings).synthesize(replace(given, checkpoint=checkpoint))
