"""The cost of an ONNX file: size, latency beside another file, and memory."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raydream.evaluation.latency import Latency, measure_calls
from raydream.quantization.onnx_static import OnnxNetwork

PASSES = 50


@dataclass(frozen=True)
class FileCost:
    """The cost of one ONNX file in ONNX Runtime on this machine's CPU.

    Attributes:
        size_bytes: size of the file.
        latencies: latencies by the number of images in a pass.
        peak_memory_bytes: memory that a process takes beyond its use before opening the file, by the same.
        threads: number of threads of an operation.
    """

    size_bytes: int
    latencies: dict[int, Latency]
    peak_memory_bytes: dict[int, int]
    threads: int


def file_costs(
    paths: Sequence[Path],
    input_shape: tuple[int, int, int],
    batch_sizes: Sequence[int] = (1, 32),
    threads: int = 1,
    passes: int = PASSES,
) -> list[FileCost]:
    """Measure the costs of several files, alternating their passes so that other load on the machine affects all alike.

    Args:
        input_shape: [C,H,W] of their images.
        passes: number of timed passes of each file, for each batch size, after a warm-up.

    Raises:
        ImportError: onnxruntime is not installed.
        subprocess.CalledProcessError: a process that measures memory failed.
    """
    networks = [OnnxNetwork(path, threads) for path in paths]
    random = np.random.default_rng(0)
    by_size: dict[int, list[Latency]] = {}
    for size in batch_sizes:
        x = random.standard_normal((size, *input_shape)).astype(np.float32)
        calls = [lambda network=network, x=x: network(x) for network in networks]
        by_size[size] = measure_calls(calls, size, passes)
    return [
        FileCost(
            path.stat().st_size,
            {size: latencies[index] for size, latencies in by_size.items()},
            {size: peak_memory(path, (size, *input_shape), threads) for size in batch_sizes},
            threads,
        )
        for index, path in enumerate(paths)
    ]


_MEASURE = """
import resource, sys
from pathlib import Path
import numpy, onnxruntime

def peak():
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)

path, threads, *shape = sys.argv[1:]
x = numpy.zeros([int(each) for each in shape], numpy.float32)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
try:
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of imports, is forgotten
except OSError:
    pass
before = peak()
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
for _ in range(3):
    session.run(None, {session.get_inputs()[0].name: x})
print(peak() - before)
"""


def peak_memory(path: Path, shape: tuple[int, ...], threads: int) -> int:
    """Measure the bytes that a fresh process takes to open an ONNX file and run a batch of shape [N,C,H,W]."""
    command = [sys.executable, "-c", _MEASURE, str(path), str(threads), *map(str, shape)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(answer.stdout) * 1024
