"""Engine: whether it compiles, which follows from the configuration alone, and what it says of finished images."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from raydream.synthesis.engine import Engine
from raydream.synthesis.synthesizer import Request
from tests.tiny import tiny_network, tiny_student, tiny_synthesis, tiny_targets, tiny_teacher

TERMS = ("classification", "feature", "competition")


def compiles(monkeypatch: pytest.MonkeyPatch, at_s: float, batches: int = 1, count: int = 8, **settings) -> bool:
    """Whether an engine compiles, where compiling takes so many seconds."""
    monkeypatch.setattr("raydream.compute.COMPILE_S", at_s)
    student = settings.pop("student", None)
    engine = Engine(tiny_teacher(), tiny_synthesis(**settings), TERMS, batches)
    return engine.gradient(Request(tiny_targets(count), 0, student)).compiled


def saved_s(monkeypatch: pytest.MonkeyPatch, **settings) -> float:
    """The seconds below which compiling pays, to a thousandth of them."""
    low, high = 0.0, 1e3
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if compiles(monkeypatch, middle, **settings) else (low, middle)
    return high


def test_all_batches_of_the_run_pay_for_compiling(monkeypatch):
    one = saved_s(monkeypatch)
    assert saved_s(monkeypatch, batches=5) == pytest.approx(5 * one, rel=0.01)


def test_each_stage_is_charged_at_its_own_size(monkeypatch):
    whole = saved_s(monkeypatch, iterations=10, batch_size=10_000)  # arithmetic, above all
    small = [{"size": [4, 4], "iterations": 5}, {"iterations": 5}]
    half = saved_s(monkeypatch, stages=small, batch_size=10_000)
    assert half == pytest.approx((0.5 + 0.5 / 4) * whole, rel=0.15)


def test_small_batches_are_charged_their_launches(monkeypatch):
    few, more = (saved_s(monkeypatch, batch_size=size) for size in (1, 2))
    assert 0 < more < 1.1 * few


def test_a_competition_is_charged_for_both_networks(monkeypatch):
    alone = saved_s(monkeypatch, batch_size=10_000)
    assert saved_s(monkeypatch, batch_size=10_000, student=tiny_student()) == pytest.approx(2 * alone, rel=0.1)


def test_the_first_request_of_a_process_decides_nothing(monkeypatch):
    # Else the bits of a batch would depend on who made the smaller one before it.
    border = saved_s(monkeypatch, batch_size=8)
    for count in (1, 8, 500):
        assert compiles(monkeypatch, 0.99 * border, count=count, batch_size=8)
        assert not compiles(monkeypatch, 1.01 * border, count=count, batch_size=8)


class NarrowWithoutGradients(nn.Module):
    """A network for whose finished images memory ends at so many."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most and not torch.is_grad_enabled():
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return self.network(x)


def test_what_is_said_of_finished_images_is_said_in_chunks_where_memory_ends():
    teacher, images = tiny_teacher(), torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    narrow = replace(teacher, network=NarrowWithoutGradients(tiny_network().eval(), 2))
    engine = Engine(narrow, tiny_synthesis(), TERMS, 1)
    before = engine.way()
    torch.testing.assert_close(engine.logits(images), teacher.logits(images))
    assert engine.take_notes() == tuple(
        f"out of memory with {tried} images at once: going on with {then}" for tried, then in ((7, 4), (4, 2))
    )
    torch.testing.assert_close(engine.logits(images), teacher.logits(images))
    assert engine.take_notes() == () and engine.way() != before
