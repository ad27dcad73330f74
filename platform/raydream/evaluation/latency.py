"""The cost of a network: measured latency, FLOPs, parameters, filters."""

import copy
import itertools
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

WARM_UP_S = 0.1
"""seconds that a network runs before timing: memory is allocated, kernels are chosen, the clock rises"""


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Latency:
    """The latency of a forward pass without gradients.

    Attributes:
        median_s, low_s, high_s: seconds for a batch; the middle half of all passes lies between low and high.
        passes: number of timed passes.
        batch_size: images in a pass.
    """

    median_s: float
    low_s: float
    high_s: float
    passes: int
    batch_size: int


def measure_latencies(
    networks: Sequence[nn.Module],
    input_shape: tuple[int, ...],
    batch_size: int,
    passes: int = 50,
    warm_up_s: float = WARM_UP_S,
) -> list[Latency]:
    """Measure the latency of networks, alternating their passes so that other load on the machine affects all alike.

    Args:
        networks: in eval mode, on one device.
        input_shape: shape of one input, [C,H,W] of images.
        batch_size: inputs in a pass.
        passes: number of passes of each network, >= 1.
        warm_up_s: seconds that each network runs before timing.
    """
    held = itertools.chain(networks[0].parameters(), networks[0].buffers())
    device = next((tensor.device for tensor in held), torch.device("cpu"))
    x = torch.randn(batch_size, *input_shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode():
        calls = [lambda network=network: network(x) for network in networks]
        return measure_calls(calls, batch_size, passes, warm_up_s, device)


def measure_calls(
    calls: Sequence[Callable[[], object]],
    batch_size: int,
    passes: int = 50,
    warm_up_s: float = WARM_UP_S,
    device: torch.device = CPU,
) -> list[Latency]:
    """Measure the latency of alternating calls, each a pass of `batch_size` inputs; see `measure_latencies`."""
    for call in calls:
        _warm_up(call, device, warm_up_s)
    taken = [[_time(call, device) for call in calls] for _ in range(passes)]
    low, median, high = np.quantile(np.array(taken), [0.25, 0.5, 0.75], axis=0)
    return [
        Latency(float(median[index]), float(low[index]), float(high[index]), passes, batch_size)
        for index in range(len(calls))
    ]


def _warm_up(work: Callable[[], object], device: torch.device, seconds: float) -> None:
    began = time.perf_counter()
    while True:
        _time(work, device)
        if time.perf_counter() - began > seconds:
            return


def _time(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - began


def flops_of(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the multiplications and additions of a forward pass of one image [C,H,W], by torch's counter."""
    device, network = next(network.parameters()).device, copy.deepcopy(network).eval()  # statistics are left alone
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *input_shape, device=device))
    return int(counter.get_total_flops())


def filters_of(network: nn.Module) -> int:
    """Count the output channels of all convolutions."""
    return sum(layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d))


def device_name(device: torch.device) -> str:
    """Return the processor's model, which latency depends on besides versions and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else f"{platform.processor() or platform.machine()} {device.type}"
