"""The device and arithmetic of networks, and whether compiling pays.

All of it follows from the configuration and the machine, never from a measured time, so that a run can be repeated to
the bit.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from raydream.config import SynthesisConfig
from raydream.errors import InputError

COMPILE_S = 60.0
"""seconds that compiling is assumed to take; it takes 10 to 60"""
ONE_GRAPH_S = 90.0
"""seconds that compiling has to save in all before it pays to compile forward and backward pass as one graph, with the
teacher's weights as constants: that saves a tenth to a quarter of the remaining time, but torch's cache does not keep
the code, so that each process takes 12 to 20 seconds for it"""
SAVED_SHARE = 1 / 3
"""of the time that arithmetic takes uncompiled, what compiling is assumed to save (by fewer passes through memory)"""
ASSUMED_RATE = {"cpu": 1e11, "cuda": 2e13, "mps": 1e12}
"""arithmetic operations per second that an uncompiled inversion is assumed to reach, per CPU thread or device"""

SAVED_LAUNCH_S = {"cpu": 6e-6, "cuda": 1e-5, "mps": 1e-5}
"""seconds that compiling is assumed to save for each call of a kernel, as it leaves few of them: by device (an update
of 64 digits on a CPU goes from 17.5 to 11.9 ms; no GPU has confirmed the others)"""

SMALL_KERNEL = 5e7
"""arithmetic operations in a kernel call of a forward pass, on average, below which a second thread does not pay: it
starts and waits for longer than it computes (the digits network has half of that, a CIFAR ResNet-20 three times)"""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""glibc's names for: bytes free at the heap's end before it shrinks; blocks that may come from the kernel directly"""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def use_device(device: str, cpus: float, gpus: float) -> torch.device:
    """Set up this process to compute, with max(1, cpus) threads and memory that is kept; returns its device.

    On CUDA this is the current device, by its index. Ray shows a generator only the GPU that it reserved; the Train
    workers of one node see the GPUs of all of them, and Ray Train has made each worker's own GPU the current one.

    Args:
        device: cpu, cuda or mps; auto: cuda where a GPU is reserved, else mps where there is one, else cpu.
        cpus, gpus: reserved by this process. A fraction of a GPU is also the share of its memory that this
            process may take, so that one process cannot starve the others on that GPU.

    Raises:
        InputError: the device is named and missing.
    """
    torch.set_num_threads(max(1, int(cpus)))
    _keep_freed_memory()
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = "cuda" if gpus > 0 and there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there.get(device):
        known = ", ".join(name for name, available in there.items() if available)
        raise InputError("device", device, f"one of {known}, or auto", "this machine has no such device")
    return _current_gpu(gpus) if device == "cuda" else torch.device(device)


def _current_gpu(gpus: float) -> torch.device:
    device = torch.device("cuda", torch.cuda.current_device())
    if 0 < gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus, device)
    # By default, torch's fp32 convolutions are TF32. The older of two interfaces, as Inductor (2.15) reads that one.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return device


def compute_deterministically(device: torch.device) -> None:
    """Set all switches by which this process computes the same bits each time on a device.

    Call it before anything is computed there, as cuBLAS reads its switch once. From then on torch raises
    RuntimeError at an operation that has no deterministic form on CUDA (uncompiled, the backward pass of max pooling is
    one). Other devices are left alone: a CPU computes the same bits anyway.
    """
    if device.type != "cuda":
        return
    import torch._inductor.config as inductor  # here, as it takes seconds

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(True)
    inductor.deterministic = True  # no reduction's shape is chosen by timing
    # Filling memory that is about to be written costs time and changes nothing here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def repeats_bits(device: torch.device) -> bool:
    """Return whether this process computes the same bits each time on a device: a CPU, or CUDA in lockstep."""
    return device.type == "cpu" or (device.type == "cuda" and torch.are_deterministic_algorithms_enabled())


def arithmetic(device: torch.device) -> dict[str, object]:
    """Return all of this machine that decides the bits of a computation, for a recipe."""
    found: dict[str, object] = {
        "torch": torch.__version__,
        "device": device.type,
        "processor": cpu_instructions(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        found |= {
            "processor": torch.cuda.get_device_name(device),
            "driver": driver_version(),
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
    return found


def driver_version(source: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Return the version of NVIDIA's kernel module; empty if unknown, as outside of Linux."""
    try:
        return source.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return ""


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory, rather than return it to the kernel and request it again.

    An update frees hundreds of megabytes and takes as many at once. Each page that comes back from the kernel costs
    a fault: 10,000 an update, an eighth of its time, for a batch of 256 through a CIFAR ResNet-20.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Choose the type that networks compute in.

    Args:
        precision: a key of `DTYPES`, or auto: bf16 if the device has instructions for it, else fp32.
    """
    if precision != "auto":
        return DTYPES[precision]
    cuda = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = device.type == "cpu" and has_bf16_instructions()
    return torch.bfloat16 if cuda or cpu else torch.float32


def has_bf16_instructions() -> bool:
    """Return whether this CPU has instructions to multiply bf16."""
    found = cpu_instructions()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))


def cpu_instructions() -> dict[str, bool]:
    """Return the CPU's instructions that decide how torch computes; none if torch (2.11) cannot tell."""
    return dict(getattr(torch.cpu, "get_capabilities", dict)())


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Return a context that autocasts to a type on a device; it does nothing for fp32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def compiling_pays(config: SynthesisConfig, saved_s: Callable[[], float]) -> bool:
    """Return whether to compile the networks; `auto`: if that saves more time than it takes.

    Args:
        saved_s: returns the seconds that it saves in all; called for `auto` alone.
    """
    if config.compile != "auto":
        return config.compile == "on"
    return saved_s() > COMPILE_S


@dataclass(frozen=True)
class Work:
    """The cost of a computation on a device.

    Attributes:
        operations: arithmetic operations in convolutions and matrix products.
        launches: calls of torch's kernels, each of which costs time however small it is.
    """

    operations: float
    launches: int


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations and launches; `FlopCounterMode` itself cannot follow the gradient of a leaf."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations, self.launches = 0.0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.launches += 1
        if count := flop_registry.get(func.overloadpacket):
            self.operations += count(*args, **(kwargs or {}), out_val=made)
        return made


def counted(compute: Callable[[], object]) -> Work:
    """Measure the cost of a computation by running it."""
    with _Counter() as counter:
        compute()
    return Work(counter.operations, counter.launches)


def saved_by_compiling_s(work: Work, images: int, device: torch.device, threads: int) -> float:
    """Estimate the seconds that compiling saves; no time is measured, so that runs can be repeated to the bit.

    Args:
        work: of one image; more images are more arithmetic in the same number of launches.
        threads: number that the device computes with, if it is a CPU.
    """
    rate = ASSUMED_RATE[device.type] * (threads if device.type == "cpu" else 1)
    return SAVED_SHARE * work.operations * images / rate + work.launches * SAVED_LAUNCH_S[device.type]


@contextlib.contextmanager
def threads_that_pay(network: nn.Module, shape: tuple[int, ...], images: int) -> Iterator[None]:
    """Compute on one thread where the kernel calls of a network are small for a batch.

    Args:
        network: runs once, in eval mode, on its device.
        shape: [C,H,W] of an image.
        images: number in a batch.
    """
    before, training = torch.get_num_threads(), network.training
    weights = next(network.parameters())
    image = torch.zeros(1, *shape, device=weights.device, dtype=weights.dtype)
    network.eval()
    with torch.no_grad():
        work = counted(lambda: network(image))
    network.train(training)
    if work.operations * images < SMALL_KERNEL * work.launches:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
