"""PixelGradient, compiled: for each shape, and noted where it is not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from raydream.config import TeacherConfig
from raydream.synthesis.engine import Engine
from raydream.teachers.teacher import make_teacher
from tests.synthesis.test_gradient import ALL, assert_same, gradient_of, some_images
from tests.synthesis.test_memory import child
from tests.tiny import tiny_synthesis


def small_network(seed: int) -> nn.Module:
    """A single convolution, as the compiler takes its time for each layer."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


@pytest.mark.parametrize("in_one_graph", [False, pytest.param(True, marks=pytest.mark.long)])
def test_compiled_equals_uncompiled(in_one_graph):
    images, targets = some_images(8, dtype=torch.float32)
    networks = small_network(0), small_network(1)
    plain = gradient_of(ALL, networks=networks)(images, targets)
    compiled = gradient_of(ALL, networks=networks, compiled=True, in_one_graph=in_one_graph)
    assert_same(compiled(images, targets), plain, 1e-5)
    assert compiled.take_notes() == ()
    assert_same(compiled(-images, targets), gradient_of(ALL, networks=networks)(-images, targets), 1e-5)
    other = small_network(0), small_network(2)
    compiled._student.load_state_dict(other[1].state_dict())
    assert_same(compiled(images, targets), gradient_of(ALL, networks=other)(images, targets), 1e-5)
    assert compiled.in_one_graph == in_one_graph and compiled.take_notes() == ()


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes of the images that are compiled for from now on, by a compiler that costs nothing."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        compiled.append(len(inputs[0]))
        return graph

    monkeypatch.setattr("raydream.synthesis.compiled.BACKEND", backend)
    return compiled


def quick(compiled: bool = True, chunk_size: int | None = None, network: type[nn.Module] = nn.Sequential):
    """An engine that Dynamo follows in a moment."""
    layers = network(nn.Flatten(), nn.Linear(64, 10)).double()
    return gradient_of(("classification",), chunk_size, (layers, layers), compiled=compiled, in_one_graph=True)


@pytest.mark.parametrize("engines", [1, 12])
def test_a_twelfth_shape_in_a_process_is_compiled_as_the_first(monkeypatch, engines):
    # Dynamo compiles a piece of code for 8 shapes, and runs it uncompiled from then on without a word.
    compiled, made = counting(monkeypatch), [quick() for _ in range(engines)]
    for index in range(12):
        evaluate, (images, targets) = made[index % engines], some_images(3 + index)
        for _ in range(2):
            evaluate(images, targets)
        assert evaluate.compiled and evaluate.take_notes() == ()
    assert compiled == [3 + index for index in range(12)]


def test_chunks_are_compiled_for_each_of_their_sizes(monkeypatch):
    compiled, evaluate = counting(monkeypatch), quick(chunk_size=4)
    for count in (6, 7):  # chunks of 4 and 2, and of 4 and 3
        evaluate(*some_images(count))
    assert compiled == [4, 2, 3]
    assert evaluate.take_notes() == ()


def test_where_compiling_for_a_later_shape_fails_it_is_noted(monkeypatch):
    def fails_at_five(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        if len(inputs[0]) == 5:
            raise RuntimeError("no compiler")
        return graph

    monkeypatch.setattr("raydream.synthesis.compiled.BACKEND", fails_at_five)
    evaluate = quick()
    evaluate(*some_images(4))
    assert evaluate.compiled and evaluate.take_notes() == ()
    assert evaluate(*some_images(5)).gradient.abs().max() > 0
    several, none = evaluate.take_notes()
    assert several.startswith("compiling in several graphs, not in one (")
    assert none.startswith("compiling failed, going on without (")
    assert not evaluate.compiled


def freezing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of inputs of the graphs that are compiled from now on; constants stay as they are at that moment."""
    varying: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        varying.append(len(inputs))
        for name, value in list(graph.named_buffers()):
            setattr(graph, name, value.clone())
        return graph

    monkeypatch.setattr("raydream.synthesis.compiled.BACKEND", backend)
    return varying


def test_a_teacher_is_a_constant_of_compiled_code(monkeypatch):
    varying, (images, targets) = freezing(monkeypatch), some_images(6, dtype=torch.float32)
    networks = small_network(0), small_network(1)
    evaluate = gradient_of(("classification", "feature"), None, networks, compiled=True, in_one_graph=True)
    evaluate(images, targets)
    assert varying == [3]  # images, targets and the factor on the images


def test_what_changes_between_batches_is_no_constant(monkeypatch):
    freezing(monkeypatch)
    monkeypatch.setattr("raydream.synthesis.engine.ONE_GRAPH_S", 0.0)
    terms = ("classification", "feature", "masked_kl")
    teacher, (images, targets) = make_teacher(small_network(0), TeacherConfig()), some_images(6, dtype=torch.float32)
    engines = [Engine(teacher, tiny_synthesis(method="fast", compile=each), terms, 1) for each in ("on", "off")]
    average = None
    for seed in (1, 2):
        found = []
        for engine in engines:
            engine.begin(average)
            found.append(engine.gradient(small_network(seed))(images, targets))
        assert_same(found[0], found[1], 1e-4)
        average = engines[1].compared()
        torch.testing.assert_close(engines[0].compared(), average)
        average = average + 1.0
    assert engines[0].gradient(small_network(3)).in_one_graph


class Breaks(nn.Sequential):
    """A network whose own code is compiled apart, as Dynamo cannot follow all of it."""

    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return super().forward(x)


def test_a_network_that_dynamo_gives_up_compiling_is_noted(monkeypatch):
    # It compiles in several graphs, and not in one. What lies behind a break is one piece of code for all shapes, of
    # which Dynamo compiles 8.
    counting(monkeypatch)
    evaluate = quick(network=Breaks)
    evaluate(*some_images(1))
    assert evaluate.compiled and not evaluate.in_one_graph
    (note,) = evaluate.take_notes()
    assert note.startswith("compiling in several graphs, not in one (")
    for count in range(2, 13):
        evaluate(*some_images(count))
    (note,) = evaluate.take_notes()
    assert note.startswith("compiling failed, going on without (") and not evaluate.compiled


@pytest.mark.long
def test_twelve_shapes_are_compiled_by_the_real_compiler():
    torch._dynamo.utils.counters.clear()
    evaluate, plain = quick(), quick(compiled=False)
    plain._teacher.load_state_dict(evaluate._teacher.state_dict())
    for count in range(3, 15):
        images, targets = some_images(count)
        assert_same(evaluate(images, targets), plain(images, targets), 1e-10)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 12
    assert evaluate.compiled and evaluate.take_notes() == ()


WITHOUT_COMPILER = """
import json
import torch
from raydream.config import TeacherConfig
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.teachers.teacher import make_teacher
from tests.synthesis.test_compiling import small_network
from tests.tiny import tiny_synthesis, tiny_targets

made = {}
for compile in ("on", "off"):
    teacher = make_teacher(small_network(0), TeacherConfig())
    synthesizer = SYNTHESIZERS["deep_inversion"](teacher, tiny_synthesis(method="deep_inversion", compile=compile))
    made[compile] = [synthesizer.synthesize(Request(tiny_targets(), seed)) for seed in (0, 1)]
print(json.dumps({
    "notes": {name: [batch.notes for batch in batches] for name, batches in made.items()},
    "same": all(torch.equal(a.images, b.images) for a, b in zip(*made.values())),
    "losses": all(a.losses == b.losses for a, b in zip(*made.values())),
}))
"""


@pytest.mark.long
def test_without_a_compiler_it_goes_on_uncompiled_and_says_so(tmp_path):
    told = child(WITHOUT_COMPILER, CXX="/nonexistent/c++", TORCHINDUCTOR_CACHE_DIR=str(tmp_path), OMP_NUM_THREADS="1")
    assert told["same"] and told["losses"]
    assert told["notes"]["off"] == [[], []]
    first, second = told["notes"]["on"]
    assert len(first) == 1 and first[0].startswith("compiling failed, going on without (")
    assert second == []  # tried once, not for every batch
