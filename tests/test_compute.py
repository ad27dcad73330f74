import contextlib
import copy
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from raydream.compute import (
    COMPILE_S,
    DTYPES,
    Work,
    autocast,
    choose_dtype,
    compiling_pays,
    counted,
    has_bf16_instructions,
    saved_by_compiling_s,
    threads_that_pay,
    use_device,
)
from raydream.config import SynthesisConfig
from raydream.errors import InputError
from raydream.networks import NETWORKS

CPU = torch.device("cpu")
CPU_FLAGS = Path("/proc/cpuinfo")


@pytest.fixture
def threads():
    """The thread count, which is put back afterwards."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_named_precision_is_taken_on_every_device(precision, dtype, device):
    assert choose_dtype(precision, torch.device(device)) == dtype


def test_every_precision_of_the_configuration_has_a_type():
    for precision in ("fp32", "bf16", "fp16"):
        assert SynthesisConfig(precision=precision).precision in DTYPES


def test_auto_is_bf16_where_the_cpu_computes_in_it_and_fp32_elsewhere():
    expected = torch.bfloat16 if has_bf16_instructions() else torch.float32
    assert choose_dtype("auto", CPU) == expected
    assert choose_dtype("auto", torch.device("mps")) == torch.float32


@pytest.mark.skipif(not CPU_FLAGS.exists() or not hasattr(torch.cpu, "get_capabilities"), reason="nothing tells")
def test_bf16_instructions_are_those_that_the_kernel_tells_of():
    told = CPU_FLAGS.read_text()
    if "flags" not in told:
        pytest.skip("not an x86 CPU")
    flags = set(told.split())
    assert has_bf16_instructions() == bool({"avx512_bf16", "amx_bf16"} & flags)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_autocast_multiplies_in_its_type(dtype):
    weight, x = torch.randn(3, 4), torch.randn(2, 4)
    with autocast(dtype, CPU):
        assert nn.functional.linear(x, weight).dtype == dtype
    assert nn.functional.linear(x, weight).dtype == torch.float32


def test_fp32_is_left_alone_and_so_is_double():
    assert isinstance(autocast(torch.float32, CPU), contextlib.nullcontext)
    with autocast(torch.float32, CPU):
        assert nn.functional.linear(torch.randn(2, 4).double(), torch.randn(3, 4).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("choice", "saved_s", "pays"),
    [
        ("auto", 0.0, False),
        ("auto", COMPILE_S, False),
        ("auto", 1.001 * COMPILE_S, True),
        ("on", 0.0, True),
        ("off", 1e30, False),
    ],
)
def test_compiling_pays_where_it_saves_more_than_it_takes(choice, saved_s, pays):
    assert compiling_pays(SynthesisConfig(compile=choice), lambda: saved_s) == pays


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_arithmetic_is_charged_by_the_image_and_launches_are_not(device):
    where = torch.device(device)
    one = saved_by_compiling_s(Work(1e9, 0), 1, where, 1)
    assert saved_by_compiling_s(Work(1e9, 0), 30, where, 1) == pytest.approx(30 * one)
    assert saved_by_compiling_s(Work(1e9, 0), 30, where, 3) == pytest.approx((10 if device == "cpu" else 30) * one)
    launches = saved_by_compiling_s(Work(0.0, 1000), 1, where, 1)
    assert launches > 0
    assert (
        saved_by_compiling_s(Work(0.0, 1000), 30, where, 3)
        == launches
        == 2 * saved_by_compiling_s(Work(0.0, 500), 1, where, 1)
    )


@pytest.mark.parametrize(
    ("network", "size", "images", "threads"), [("digits", 8, 128, 1), ("cifar_resnet20", 32, 128, 2)]
)
def test_small_kernels_run_on_one_thread(network, size, images, threads):
    built, before = NETWORKS[network](input_channels=3), torch.get_num_threads()
    kept = copy.deepcopy(built.state_dict())
    torch.set_num_threads(2)
    try:
        with threads_that_pay(built, (3, size, size), 128):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2 and built.training
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(value, kept[name]) for name, value in built.state_dict().items()), "no statistics are taken"


def test_the_calls_of_kernels_and_their_arithmetic_are_counted():
    weight, x = torch.randn(5, 3), torch.randn(2, 3, requires_grad=True)
    assert counted(lambda: x @ weight.T) == Work(2.0 * 2 * 3 * 5, 2)  # the transposition is a call, too
    forwards = counted(lambda: (x @ weight.T).sum())
    both = counted(lambda: torch.autograd.grad((x @ weight.T).sum(), x))
    assert both.operations == 2 * forwards.operations and both.launches > forwards.launches


def counted_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 4, 3, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(4 * 3 * 4, 7),
    ).eval()


def test_operations_are_those_of_the_layers_counted_by_hand():
    # A multiplication and an addition for each weight at each place.
    first = 5 * (6 * 8) * (3 * 3 * 3)
    second = 4 * (3 * 4) * (5 * 3 * 3)
    third = 7 * (4 * 3 * 4)
    network = counted_network()
    with torch.no_grad():
        assert counted(lambda: network(torch.zeros(1, 3, 6, 8))).operations == 2 * (first + second + third)


@pytest.mark.parametrize(("cpus", "used"), [(0.25, 1), (1.0, 1), (1.9, 1), (2.0, 2), (3.5, 3)])
def test_a_process_computes_with_the_threads_that_it_reserved(threads, cpus, used):
    assert use_device("cpu", cpus, 0.0) == CPU
    assert torch.get_num_threads() == used


def test_auto_takes_no_gpu_that_is_not_reserved(threads):
    expected = "mps" if torch.backends.mps.is_available() else "cpu"
    assert use_device("auto", 1.0, 0.0).type == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_auto_takes_the_gpu_that_is_reserved(threads):
    assert use_device("auto", 1.0, 0.5).type == use_device("cuda", 1.0, 0.0).type == "cuda"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_a_reserved_gpu_that_is_not_there_is_done_without(threads):
    assert use_device("auto", 1.0, 1.0).type in ("cpu", "mps")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_named_device_that_is_not_there_is_refused(threads, device):
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
        pytest.skip("it is there")
    with pytest.raises(InputError, match="cpu") as refused:
        use_device(device, 1.0, 1.0)
    assert refused.value.field == "device" and refused.value.value == device


FAULTS = """
import resource, torch
from raydream.compute import use_device
{prepare}
faults = []
for turn in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(20_000_000, dtype=torch.uint8) for _ in range(5)] + [torch.ones(70_000_000, dtype=torch.uint8)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[2:]))
"""


def page_faults(prepare: str) -> int:
    """The fewest of several turns that take and free the same memory, in a process of its own.

    Not of each: on a busy machine the kernel itself takes pages back now and then.
    """
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(prepare=prepare)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc is what is told")
def test_memory_that_is_freed_is_used_again_without_asking_the_kernel():
    pages = 170_000_000 // resource.getpagesize()
    assert page_faults("") > pages // 4  # else there is nothing to gain, and the function can go
    assert page_faults("use_device('cpu', 1.0, 0.0)") < pages // 100
