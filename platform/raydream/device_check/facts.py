"""Facts of the machine: versions, devices and flags; then its speed of products, copies and launches."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable

import torch

from raydream.compute import choose_dtype, cpu_instructions, driver_version, use_device
from raydream.device_check.steps import Figures
from raydream.evaluation.latency import device_name
from raydream.machine import machine_cpus

PACKAGES = ("torch", "triton", "numpy", "pydantic", "torchvision", "ray")
VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "CUDA_LAUNCH_BLOCKING")
REPEATS = 10


def facts(device: str) -> Figures:
    """Return versions, the device, torch's flags as raydream sets them, and other load on the machine."""
    where = use_device(device, 1, 1)
    cuda = where.type == "cuda"
    return {
        "has": {"cuda": cuda, "ray": _is_installed("ray")},
        "device": str(where),
        "name": device_name(where),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "system": platform.platform(),
        "cpus": machine_cpus(),
        "load_average": os.getloadavg()[0],
        "cpu_instructions": sorted(name for name, there in cpu_instructions().items() if there is True),
        "compilers": {name: shutil.which(name) for name in ("cc", "c++", "ptxas")},
        "precision": str(choose_dtype("auto", where)).removeprefix("torch."),
        "flags": _flags(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        **({"cuda": _cuda()} if cuda else {}),
    }


def _cuda() -> Figures:
    properties = torch.cuda.get_device_properties()
    free, _ = torch.cuda.mem_get_info()
    return {
        "version": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": driver_version(),
        "devices": torch.cuda.device_count(),
        "capability": list(torch.cuda.get_device_capability()),
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "free_bytes": free,
    }


def _flags() -> dict[str, object]:
    return {
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def rates(device: str) -> Figures:
    """Measure operations a second of square matrix products, bytes a second of copies, seconds of a launch."""
    where = use_device(device, 1, 1)
    cuda = where.type == "cuda"
    side, size = (8192, 2**30) if cuda else (512, 2**24)
    return {
        "matrix_side": side,
        "operations_per_s": _products(where, side),
        "copied_bytes": size,
        "bytes_per_s": {"on_device": _copies(where, where, size, False, 2)}
        | ({} if where.type == "cpu" else {"to_device": _copies(torch.device("cpu"), where, size // 4, False, 1)})
        | ({"to_device_pinned": _copies(torch.device("cpu"), where, size // 4, True, 1)} if cuda else {}),
        "launch_s": _launch(where),
    }


def _products(device: torch.device, side: int) -> dict[str, float]:
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if device.type == "cpu":
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    found = {}
    for name, kind in kinds.items():
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        found[name] = 2.0 * side**3 / seconds_of(lambda a=a, b=b: a @ b, device)  # type: ignore[misc]
    return found


def _copies(source: torch.device, target: torch.device, size: int, pinned: bool, moved: int) -> float:
    """Measure bytes a second; `moved` is 2 where the device's memory is both read and written."""
    a = torch.ones(size // 4, device=source, pin_memory=pinned)
    b = torch.empty(size // 4, device=target)
    return moved * size / seconds_of(lambda: b.copy_(a), target)


def _launch(device: torch.device) -> float:
    x = torch.zeros(1, device=device)

    def launches() -> None:
        for _ in range(1000):
            x.add_(1.0)

    return seconds_of(launches, device) / 1000


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return the mean seconds of a piece of work, after three warm-up turns."""
    for _ in range(3):
        work()
    wait(device)
    began = time.perf_counter()
    for _ in range(REPEATS):
        work()
    wait(device)
    return (time.perf_counter() - began) / REPEATS


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
