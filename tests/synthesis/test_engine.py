"""Engine: whether it compiles, which follows from the configuration alone, and what it says of finished images."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from raydream.synthesis.engine import Engine
from tests.tiny import tiny_network, tiny_student, tiny_synthesis, tiny_teacher

TERMS = ("classification", "feature", "competition")


def saved_s(monkeypatch: pytest.MonkeyPatch, batches: int = 1, student: nn.Module | None = None, **settings) -> float:
    """The seconds that an engine takes compiling to save in all, by which `auto` decides."""
    told: list[float] = []
    monkeypatch.setattr("raydream.synthesis.engine.compiling_pays", lambda config, saved_s: told.append(saved_s()))
    Engine(tiny_teacher(), tiny_synthesis(**settings), TERMS, batches).gradient(student)
    return told[0]


def test_auto_compiles_where_that_saves_more_than_it_takes(monkeypatch):
    taken = saved_s(monkeypatch)
    monkeypatch.undo()
    for share, compiles in ((0.99, True), (1.0, False)):
        monkeypatch.setattr("raydream.compute.COMPILE_S", share * taken)
        assert Engine(tiny_teacher(), tiny_synthesis(), TERMS, 1).gradient(None).compiled == compiles


def test_both_passes_are_one_graph_in_long_runs(monkeypatch):
    saved = saved_s(monkeypatch)
    monkeypatch.undo()
    for share, whole in ((0.99, True), (1.0, False)):
        monkeypatch.setattr("raydream.synthesis.engine.ONE_GRAPH_S", share * saved)
        engine = Engine(tiny_teacher(), tiny_synthesis(compile="on"), TERMS, 1)
        assert engine.gradient(None).in_one_graph == whole and ("one_graph" in engine.way()) == whole


def test_all_batches_of_the_run_pay_for_compiling(monkeypatch):
    one = saved_s(monkeypatch)
    assert saved_s(monkeypatch, batches=5) == pytest.approx(5 * one)


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


@pytest.mark.parametrize("method", ["adaptive", "fast"], ids=["inversion", "with a generator network"])
def test_terms_of_features_and_of_activations_go_together(method):
    # fast compares a moving average of the statistics: that must not keep activations from being observed either.
    config = tiny_synthesis(method=method, coefficients={"feature": 1.5, "activation": 2.0})
    images, targets = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    found = {
        terms: Engine(tiny_teacher(), config, terms, 1).gradient(None)(images, targets)
        for terms in (("feature",), ("activation",), ("feature", "activation"))
    }
    alone, both = [found["feature",], found["activation",]], found["feature", "activation"]
    assert both.values == alone[0].values | alone[1].values
    torch.testing.assert_close(both.gradient, alone[0].gradient + alone[1].gradient)
