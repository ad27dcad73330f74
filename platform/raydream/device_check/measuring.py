"""A loop of updates, measured: seconds of the first update and of the others, launches, memory."""

import time
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

from raydream.device_check.facts import wait
from raydream.device_check.steps import Figures

Loop = Callable[[Callable[[], None]], object]
"""makes all updates of all stages, and calls its argument after each"""

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
COPIES = ("cudaMemcpyAsync", "cudaMemsetAsync")
PROFILED = range(2, 5)
"""updates of each stage, counted from 0, that are profiled: after compiling and memory allocation"""


def measure(loop: Loop, stages: Sequence[int], device: torch.device) -> list[Figures]:
    """Run a loop twice, to warm up and for its time; returns figures of each stage.

    Args:
        stages: number of updates of each, more than `PROFILED` needs.
    """
    ends = list(accumulate(stages))
    starts = [0, *ends[:-1]]
    first = _Watch(device, [*starts, *(start + 1 for start in starts)], starts if device.type == "cuda" else [])
    first.run(loop)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    second = _Watch(device, [0, *ends], [])
    second.run(loop)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return [
        {
            "ms_per_update": 1000 * (second.times[end] - second.times[start]) / (end - start),
            "first_update_s": first.times[start + 1] - first.times[start],
            **first.calls.get(start, {}),
            **({} if peak is None else {"peak_mib": peak / 2**20}),
        }
        for start, end in zip(starts, ends, strict=True)
    ]


class _Watch:
    """Called after each update of a loop; waits for the device only at some updates, so as not to slow the others.

    Args:
        marks: numbers of updates at which to record the time; 0: before the first.
        profiled: updates at which a stage starts of which some are profiled.

    Attributes:
        times: by mark, seconds.
        calls: by start of a stage, launches and copies per update.
    """

    def __init__(self, device: torch.device, marks: Sequence[int], profiled: Sequence[int]) -> None:
        self._device, self._marks, self._profiled = device, set(marks), profiled
        self._done = 0
        self._profile: profile | None = None
        self.times: dict[int, float] = {}
        self.calls: dict[int, Figures] = {}

    def run(self, loop: Loop) -> None:
        self._note()
        loop(self._updated)

    def _updated(self) -> None:
        self._done += 1
        self._note()
        for start in self._profiled:
            if self._done == start + PROFILED.start:
                wait(self._device)
                self._profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
                self._profile.start()
            elif self._done == start + PROFILED.stop and self._profile is not None:
                wait(self._device)
                self._profile.stop()
                self.calls[start] = calls_an_update({e.key: e.count for e in self._profile.key_averages()})
                self._profile = None

    def _note(self) -> None:
        if self._done in self._marks:
            wait(self._device)
            self.times[self._done] = time.perf_counter()


def calls_an_update(counts: dict[str, int]) -> Figures:
    """Return launches (of kernels and CUDA graphs) and copies per update, from the counts of profiled calls."""
    named = {"launches_per_update": LAUNCHES, "copies_per_update": COPIES}
    return {figure: sum(counts.get(name, 0) for name in names) / len(PROFILED) for figure, names in named.items()}
