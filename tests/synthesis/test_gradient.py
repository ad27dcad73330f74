"""PixelGradient: whole, in chunks, in half precision, compiled, and where memory or the compiler is missing."""

import contextlib
import gc
import itertools
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from raydream.config import CoefficientsConfig, SynthesisConfig
from raydream.errors import SynthesisError
from raydream.losses.dafl import FeatureNetwork
from raydream.losses.feature_statistics import ObservedNetwork, batch_norm_layers, frozen_copy
from raydream.losses.objective import TERMS, Objective
from raydream.synthesis.gradient import Evaluation, PixelGradient
from raydream.synthesis.memory import is_out_of_memory
from tests.tiny import tiny_network

ROOT = Path(__file__).parents[2]
WEIGHTS = {
    "classification": 1.3,
    "tv": 0.1,
    "tv_l1": 0.2,
    "l2": 0.05,
    "l2_per_image": 0.07,
    "feature": 1.5,
    "competition": 9.0,
    "one_hot": 1.1,
    "activation": 0.6,
    "information_entropy": 4.0,
}
PRIOR = ("tv", "tv_l1", "l2", "l2_per_image")
PARTS = (("classification",), ("feature",), ("competition",), PRIOR)
COMBINATIONS = [sum(parts, ()) for count in range(1, len(PARTS) + 1) for parts in itertools.combinations(PARTS, count)]
ALL = COMBINATIONS[-1]
DAFL = ("one_hot", "activation", "information_entropy")
COMBINATIONS += [DAFL, *((term,) for term in DAFL)]


def config_of(**changes: object) -> SynthesisConfig:
    return SynthesisConfig(
        first_bn=3.0, competition_temperature=2.0, coefficients=CoefficientsConfig(**WEIGHTS), **changes
    )


def gradient_of(
    terms: tuple[str, ...],
    chunk_size: int | None = None,
    networks: tuple[nn.Module, nn.Module] | None = None,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> PixelGradient:
    """As an inversion builds it; in float64 where the networks are."""
    teacher, student = networks or doubles()
    objective = Objective(terms, config_of())
    observed = ObservedNetwork(teacher) if "feature" in terms else frozen_copy(teacher)
    if "activation" in terms:
        observed = FeatureNetwork(teacher, 10)
    other = frozen_copy(student) if "competition" in terms else None
    return PixelGradient(objective, observed, other, torch.ones(1, 1, 1, 1), dtype, compiled, chunk_size)


def singles() -> tuple[nn.Module, nn.Module]:
    return tiny_network(0), tiny_network(1)


def doubles() -> tuple[nn.Module, nn.Module]:
    return tiny_network(0).double(), tiny_network(1).double()


def some_images(count: int, seed: int = 0, **kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Images that differ in brightness, so that no chunk's statistics are those of the batch."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=random)
    return (images + torch.linspace(-1.5, 1.5, count).view(-1, 1, 1, 1)).to(**kind), torch.arange(count) % 10


def plain_evaluation(terms: tuple[str, ...], images: Tensor, targets: Tensor) -> Evaluation:
    """The same from the equations, in float64: hooks, means and variances one after the other, and autograd."""
    teacher, student = (network.eval() for network in doubles())
    layers = list(batch_norm_layers(teacher).values())
    entered: dict[nn.Module, Tensor] = {}
    for layer in layers:
        layer.register_forward_hook(lambda layer, inputs, output: entered.update({layer: inputs[0]}))
    x = images.clone().requires_grad_()
    logits = teacher(x)
    values, distances = {}, None
    if "classification" in terms:
        chosen = torch.softmax(logits, 1)[torch.arange(len(x)), targets]
        values["classification"] = -chosen.log().mean()
    if "feature" in terms:
        told = []
        for layer in layers:
            flat = entered[layer].transpose(0, 1).flatten(1)
            mean = flat.sum(1) / flat.shape[1]
            variance = ((flat - mean[:, None]) ** 2).sum(1) / flat.shape[1]
            of_means = ((mean - layer.running_mean) ** 2).sum().sqrt()
            told.append(of_means + ((variance - layer.running_var) ** 2).sum().sqrt())
        distances = torch.stack(told)
        values["feature"] = 3.0 * told[0] + sum(told[1:])
    if "competition" in terms:
        p, q = torch.softmax(logits / 2.0, 1), torch.softmax(student(x) / 2.0, 1)
        m = (p + q) / 2
        values["competition"] = 1.0 - (0.5 * p * (p / m).log() + 0.5 * q * (q / m).log()).sum(1).mean()
    if "tv" in terms:
        differences = [
            x[..., 1:] - x[..., :-1],
            x[..., 1:, :] - x[..., :-1, :],
            x[..., 1:, 1:] - x[..., :-1, :-1],
            x[..., :-1, 1:] - x[..., 1:, :-1],
        ]
        values["tv"] = sum((d**2).sum().sqrt() for d in differences)
        values["tv_l1"] = sum(d.abs().sum() / d.numel() for d in differences)
        values["l2"] = (x**2).sum().sqrt()
        values["l2_per_image"] = sum((image**2).sum().sqrt() for image in x) / len(x)
    if "one_hot" in terms:
        values["one_hot"] = -torch.softmax(logits, 1).max(1).values.log().mean()
    if "activation" in terms:
        entered_last = teacher[:-1](x)
        values["activation"] = -sum(row.abs().sum() for row in entered_last) / entered_last.numel()
    if "information_entropy" in terms:
        mean = sum(torch.softmax(row, 0) for row in logits) / len(logits)
        values["information_entropy"] = (mean * mean.log()).sum()
    total = sum(WEIGHTS[name] * value for name, value in values.items())
    (gradient,) = torch.autograd.grad(total, x)
    return Evaluation(gradient, total, values, distances)


def assert_same(found: Evaluation, expected: Evaluation, accuracy: float) -> None:
    largest = expected.gradient.abs().max().item()
    assert largest > 0
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=0.0, atol=accuracy * largest)
    torch.testing.assert_close(found.total.detach(), expected.total.detach(), rtol=accuracy, atol=0.0)
    assert found.values.keys() == expected.values.keys()
    for name, value in found.values.items():
        torch.testing.assert_close(value.detach(), expected.values[name].detach(), rtol=accuracy, atol=0.0, msg=name)
    assert (found.distances is None) == (expected.distances is None)
    if found.distances is not None:
        torch.testing.assert_close(found.distances.detach(), expected.distances.detach(), rtol=accuracy, atol=0.0)


def likeness(a: Tensor, b: Tensor) -> float:
    return nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()


@pytest.mark.parametrize("terms", COMBINATIONS, ids="+".join)
def test_a_whole_batch_equals_plain_autograd(terms):
    images, targets = some_images(8)
    assert_same(gradient_of(terms)(images, targets), plain_evaluation(terms, images, targets), 1e-10)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("terms", COMBINATIONS, ids="+".join)
def test_chunks_equal_plain_autograd_on_the_whole_batch(terms, chunk_size):
    images, targets = some_images(8)
    assert_same(gradient_of(terms, chunk_size)(images, targets), plain_evaluation(terms, images, targets), 1e-10)


@pytest.mark.parametrize(("count", "chunk_size"), [(7, 1), (7, 2), (7, 3), (7, 6), (5, 4), (3, 2)])
def test_chunks_of_shares_that_are_no_binary_fractions_are_as_exact(count, chunk_size):
    images, targets = some_images(count)
    assert_same(gradient_of(ALL, chunk_size)(images, targets), gradient_of(ALL)(images, targets), 1e-10)


def test_chunks_that_were_each_a_batch_would_tell_something_else():
    # What the tests above would not see if all images were alike.
    images, targets = some_images(8)
    whole = gradient_of(ALL)(images, targets).gradient
    halves = [gradient_of(ALL)(images[rows], targets[rows]).gradient / 2 for rows in (slice(0, 4), slice(4, 8))]
    assert (whole - torch.cat(halves)).norm() > 0.05 * whole.norm()


def test_a_batch_of_one_image_has_statistics_too():
    images, targets = some_images(1)
    assert_same(gradient_of(ALL)(images, targets), plain_evaluation(ALL, images, targets), 1e-10)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_the_gradient_is_that_of_the_total(chunk_size):
    evaluate, (images, targets) = gradient_of(ALL, chunk_size), some_images(8)
    gradient = evaluate(images, targets).gradient
    random = torch.Generator().manual_seed(1)
    for _ in range(3):
        step = 1e-6 * torch.randn(images.shape, dtype=torch.float64, generator=random)
        slope = (evaluate(images + step, targets).total - evaluate(images - step, targets).total).item() / 2
        assert slope == pytest.approx((gradient * step).sum().item(), rel=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_evaluating_again_gives_the_same_and_leaves_the_images_as_they_are(chunk_size):
    evaluate, (images, targets) = gradient_of(ALL, chunk_size), some_images(8)
    kept = images.clone()
    first, other, again = (evaluate(x, targets) for x in (images, -images, images))
    assert torch.equal(first.gradient, again.gradient) and torch.equal(first.total, again.total)
    assert not torch.equal(first.gradient, other.gradient)
    assert torch.equal(images, kept) and not images.requires_grad and images.grad is None


def test_images_of_any_layout_and_kind_of_view_are_taken():
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    evaluate = gradient_of(("classification", "tv", "l2", "feature"), networks=(teacher, teacher))
    images = torch.randn(5, 3, 6, 7, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 3, 0])
    expected = evaluate(images, targets)
    for x in (images.contiguous(memory_format=torch.channels_last), images.flip(3).flip(3), images.requires_grad_()):
        assert_same(evaluate(x, targets), expected, 1e-12)


def test_the_layers_told_are_those_of_the_distances():
    assert gradient_of(("classification",)).layers == []
    evaluate = gradient_of(ALL)
    assert evaluate.layers == list(batch_norm_layers(tiny_network()))
    assert evaluate(*some_images(4)).distances.shape == (len(evaluate.layers),)


@pytest.mark.parametrize("chunk_size", [None, 5], ids=["whole", "chunks"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_points_the_same_way(dtype, chunk_size):
    images, targets = some_images(16, dtype=torch.float32)
    single = gradient_of(ALL, networks=singles())(images, targets)
    half = gradient_of(ALL, chunk_size, singles(), dtype)(images, targets)
    assert half.gradient.dtype == half.total.dtype == torch.float32
    assert likeness(half.gradient, single.gradient) > 0.99
    assert half.gradient.norm().item() == pytest.approx(single.gradient.norm().item(), rel=0.05)
    assert not torch.equal(half.gradient, single.gradient)
    assert half.total.item() == pytest.approx(single.total.item(), rel=0.02)
    for name, value in half.values.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(single.values[name].item(), rel=0.05), name
        if name in PRIOR:  # which no network has anything to do with
            assert value.item() == pytest.approx(single.values[name].item(), rel=1e-6), name


@pytest.mark.parametrize("chunk_size", [None, 400], ids=["whole", "chunks"])
def test_gradients_too_small_for_fp16_do_not_vanish(chunk_size):
    # The mean over images divides each one's gradient by their number, and fp16 ends at 6e-8.
    images, targets = some_images(2048, dtype=torch.float32)
    targets = tiny_network().eval()(images).argmax(1)  # the teacher is sure, so that little is left to pull
    single = gradient_of(("classification",), networks=singles())(images, targets).gradient
    half = gradient_of(("classification",), chunk_size, singles(), torch.float16)(images, targets).gradient
    sizes = single.flatten(1).norm(dim=1)
    smallest = sizes < sizes.quantile(0.1)
    assert sizes[smallest].max() < 1e-5
    assert likeness(half[smallest], single[smallest]) > 0.99


def small_network(seed: int) -> nn.Module:
    """A single convolution, as the compiler takes its time for each layer."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


def test_compiled_equals_uncompiled():
    images, targets = some_images(8, dtype=torch.float32)
    networks = small_network(0), small_network(1)
    plain = gradient_of(ALL, networks=networks)(images, targets)
    compiled = gradient_of(ALL, networks=networks, compiled=True)
    assert_same(compiled(images, targets), plain, 1e-5)
    assert compiled.take_notes() == ()
    assert_same(compiled(-images, targets), gradient_of(ALL, networks=networks)(-images, targets), 1e-5)


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes of the images that are compiled for from now on, by a compiler that costs nothing."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        compiled.append(len(inputs[0]))
        return graph

    monkeypatch.setattr("raydream.synthesis.gradient.BACKEND", backend)
    return compiled


def quick(compiled: bool = True, chunk_size: int | None = None, network: type[nn.Module] = nn.Sequential):
    """An engine that Dynamo follows in a moment."""
    layers = network(nn.Flatten(), nn.Linear(64, 10)).double()
    return gradient_of(("classification",), chunk_size, (layers, layers), compiled=compiled)


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

    monkeypatch.setattr("raydream.synthesis.gradient.BACKEND", fails_at_five)
    evaluate = quick()
    evaluate(*some_images(4))
    assert evaluate.compiled and evaluate.take_notes() == ()
    assert evaluate(*some_images(5)).gradient.abs().max() > 0
    (note,) = evaluate.take_notes()
    assert note.startswith("compiling failed, going on without (")
    assert not evaluate.compiled


class Breaks(nn.Sequential):
    """A network whose own code is compiled apart, as Dynamo cannot follow all of it."""

    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return super().forward(x)


def test_a_network_that_dynamo_gives_up_compiling_is_noted(monkeypatch):
    # What lies behind a graph break is one piece of code for all shapes, of which Dynamo compiles 8.
    counting(monkeypatch)
    evaluate = quick(network=Breaks)
    for count in range(1, 13):
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


class Narrow(nn.Module):
    """A network that says that its memory ends at so many images, as torch would."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.network(x)


@pytest.mark.parametrize(
    ("asked", "sizes"), [(None, [7, 4, 2]), (6, [6, 3, 2]), (2, [2]), (1, [1])], ids=["none", "6", "2", "1"]
)
def test_where_memory_ends_chunks_are_halved_until_they_fit_and_stay_so(asked, sizes):
    images, targets = some_images(7)
    teacher, student = doubles()
    evaluate = gradient_of(ALL, asked, (Narrow(teacher, 2), student))
    fitting = gradient_of(ALL, sizes[-1])
    assert_same(evaluate(images, targets), fitting(images, targets), 1e-12)
    expected = [
        f"out of memory with {tried} images at once: going on with {then}" for tried, then in itertools.pairwise(sizes)
    ]
    assert list(evaluate.take_notes()) == expected
    assert_same(evaluate(-images, targets), fitting(-images, targets), 1e-12)
    assert evaluate.take_notes() == ()


def test_a_single_image_that_does_not_fit_is_given_up():
    evaluate = gradient_of(("classification",), networks=(Narrow(tiny_network(), 0), tiny_network()))
    with pytest.raises(SynthesisError, match=r"single image: .*CUDA out of memory"):
        evaluate(*some_images(5, dtype=torch.float32))


class Mark(torch.autograd.Function):
    """Changes nothing, and leaves an object that lives as long as the graph through it."""

    @staticmethod
    def forward(ctx, x: Tensor, tell: Callable[[object], None]) -> Tensor:
        ctx.mark = Marker()
        tell(weakref.ref(ctx.mark))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Marker:
    pass


class Marked(nn.Module):
    def __init__(self, tell: Callable[[object], None]) -> None:
        super().__init__()
        self.tell = tell

    def forward(self, x: Tensor) -> Tensor:
        return Mark.apply(x, self.tell)


@pytest.mark.parametrize("most", [0, 8], ids=["out of memory", "fitting"])
def test_no_pass_leaves_its_graph_in_memory(most):
    # The next try would find no more room than the one that failed.
    marks: list[weakref.ref] = []
    network = nn.Sequential(Marked(marks.append), nn.BatchNorm2d(1), nn.Flatten(), Narrow(nn.Linear(64, 10), most))
    evaluate = gradient_of(("classification", "feature"), networks=(network, network))
    failed = contextlib.nullcontext() if most else pytest.raises(SynthesisError)
    with failed:
        evaluate(*some_images(1, dtype=torch.float32))
    del failed  # it has the error's stack frames, and they have all tensors
    gc.collect()
    assert len(marks) == 1 and marks[0]() is None


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    evaluate = gradient_of(("classification",))
    with pytest.raises(RuntimeError, match=r"size|shape|channels"):
        evaluate(torch.randn(4, 2, 8, 8, dtype=torch.float64), torch.arange(4))
    assert evaluate.take_notes() == ()


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_each_device_has_its_own_way_to_say_that_memory_ran_out(error, memory):
    assert is_out_of_memory(error) == memory


def child(code: str, **environment: str) -> dict[str, object]:
    """What a fresh process prints in its last line."""
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=300,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    return json.loads(told.stdout.splitlines()[-1])


# One allocation is what does not fit, and hundreds of MB are left when it fails: with none left, libraries that do not
# check their own small allocations crash.
STARVED = """
import json, resource
import torch
from torch import nn
from tests.synthesis.test_gradient import gradient_of, singles

MB = 2**20

class Workspace(nn.Module):
    "Needs 6 MB an image while it runs."
    def forward(self, x):
        torch.empty(len(x), 6 * MB, dtype=torch.uint8)
        return x

def networks():
    return tuple(nn.Sequential(Workspace(), network) for network in singles())

count, side = 192, 8
random = torch.Generator().manual_seed(0)
images, targets = torch.randn(count, 1, side, side, generator=random), torch.arange(count) % 10
terms = ("classification", "tv", "l2", "feature", "competition")
gradient_of(terms, networks=networks())(images, targets)  # loads what is loaded at the first use
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 400 * MB  # 288 MB of 48 images fit, 576 of 96 do not
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
evaluate = gradient_of(terms, networks=networks())
starved = evaluate(images, targets)
notes = evaluate.take_notes()
size = int(notes[-1].split()[-1])
asked = gradient_of(terms, size, networks())(images, targets)
again = evaluate(images, targets)
print(json.dumps({
    "notes": notes,
    "size": size,
    "more": evaluate.take_notes(),
    "same": torch.equal(starved.gradient, asked.gradient) and torch.equal(again.gradient, asked.gradient),
    "total": [starved.total.item(), asked.total.item()],
    "finite": bool(starved.gradient.isfinite().all()) and starved.gradient.abs().max().item() > 0,
}))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_batch_larger_than_memory_is_done_in_chunks_that_fit():
    told = child(STARVED, OMP_NUM_THREADS="1")
    assert told["size"] == 48
    assert told["notes"] == [
        "out of memory with 192 images at once: going on with 96",
        "out of memory with 96 images at once: going on with 48",
    ]
    assert told["same"] and told["finite"] and told["total"][0] == told["total"][1]
    assert told["more"] == []


WITHOUT_COMPILER = """
import json
import torch
from raydream.config import TeacherConfig
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.teachers.teacher import make_teacher
from tests.synthesis.test_gradient import small_network
from tests.tiny import tiny_synthesis, tiny_targets

made = {}
for compile in ("on", "off"):
    teacher = make_teacher(small_network(0), TeacherConfig())
    synthesizer = SYNTHESIZERS["deep_inversion"](teacher, tiny_synthesis(compile=compile))
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


def test_every_term_is_tried():
    assert set(ALL) | set(DAFL) == set(TERMS) == set(WEIGHTS)
