"""Where memory ends: chunks that fit, and nothing of a failed pass that stays."""

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

from raydream.errors import SynthesisError
from raydream.memory import is_out_of_memory
from tests.synthesis.test_gradient import ALL, assert_same, doubles, gradient_of, some_images
from tests.tiny import tiny_network

ROOT = Path(__file__).parents[2]


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
