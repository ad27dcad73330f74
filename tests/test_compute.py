import contextlib
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from raydream.compute import (
    ASSUMED_RATE,
    COMPILE_S,
    DTYPES,
    autocast,
    choose_dtype,
    compiling_pays,
    has_bf16_instructions,
    operations,
    use_device,
)
from raydream.config import SynthesisConfig
from raydream.errors import InputError
from tests.tiny import tiny_network

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


@pytest.mark.parametrize("threads_used", [1, 4])
def test_compiling_pays_where_a_batch_takes_longer_than_a_minute(threads_used):
    auto, minute = SynthesisConfig(), COMPILE_S * ASSUMED_RATE["cpu"] * threads_used
    assert not compiling_pays(auto, 0.0, CPU, threads_used)
    assert not compiling_pays(auto, minute, CPU, threads_used)
    assert compiling_pays(auto, 1.001 * minute, CPU, threads_used)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_the_threads_of_the_cpu_do_not_count_where_a_gpu_computes(device):
    work = 1.001 * COMPILE_S * ASSUMED_RATE[device]
    for threads_used in (1, 64):
        assert compiling_pays(SynthesisConfig(), work, torch.device(device), threads_used)
        assert not compiling_pays(SynthesisConfig(), 0.99 * work, torch.device(device), threads_used)


@pytest.mark.parametrize("work", [0.0, 1e30])
def test_compiling_can_be_asked_for_and_forbidden(work):
    assert compiling_pays(SynthesisConfig(compile="on"), work, CPU, 1)
    assert not compiling_pays(SynthesisConfig(compile="off"), work, CPU, 1)


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
    # A multiplication and an addition for each weight at each place, forwards and again backwards.
    first = 5 * (6 * 8) * (3 * 3 * 3)
    second = 4 * (3 * 4) * (5 * 3 * 3)
    third = 7 * (4 * 3 * 4)
    images, updates = 10, 13
    expected = 2 * (first + second + third) * 2 * images * updates
    assert operations(counted_network(), (images, 3, 6, 8), updates, CPU) == expected


def test_counting_operations_leaves_the_network_as_it_is():
    network = tiny_network().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert operations(network, (8, 1, 8, 8), 100, CPU) > 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())


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
