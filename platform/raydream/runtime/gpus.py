"""Which GPUs a run uses: how many generators share them, what is left to measure on, and which stand idle."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from raydream.config import DistillConfig, PruneConfig, SynthesizeConfig, TransferConfig
from raydream.runtime.preflight import Nodes

Config = TypeVar("Config", DistillConfig, SynthesizeConfig, TransferConfig, PruneConfig)

SMALLEST_SHARE = 0.01
"""of a GPU, that is worth measuring on"""


def free_shares(gpus: int, processes: Sequence[float]) -> list[float]:
    """What processes leave free of each GPU, placed as Ray places them: a fraction goes where it fits most tightly.

    Args:
        processes: the GPUs that each reserves; one that finds no room is left out.
    """
    free = [1.0] * gpus
    for share in sorted(processes, reverse=True):
        whole = max(1, round(share))
        fitting = sorted((left, index) for index, left in enumerate(free) if left >= min(share, 1.0) - 1e-9)
        if len(fitting) >= whole:
            for left, index in fitting[:whole]:
                free[index] = max(0.0, left - min(share, 1.0))
    return free


def with_generators(config: Config, making: DistillConfig | SynthesizeConfig, nodes: Nodes) -> Config:
    """A run's settings with the number of its generators, where `generators.count` is auto and they reserve GPUs.

    There are as many as all GPUs have room for beside the student, and as the method can keep at work.

    Args:
        making: how the images are made: the run's settings, or a part of them.
        nodes: that there are: this machine.
    """
    generators, student = making.generators, getattr(making, "student", None)
    if generators.count != "auto" or not generators.gpus:
        return config
    workers = student.workers if student else 0
    free = free_shares(int(sum(node.get("GPU", 0.0) for node in nodes)), [student.gpus] * workers if student else [])
    each = generators.gpus
    fits = sum(math.floor(left / each + 1e-9) for left in free) if each < 1 else int(free.count(1.0) / each)
    cpus = sum(node.get("CPU", 0.0) for node in nodes) - (workers * student.cpus if student else 0.0)
    fits = min(fits, math.floor(cpus / generators.cpus + 1e-9))
    if making.synthesis.learns:
        fits = min(fits, making.synthesis.generator.chains)
    return replace(config, generators=replace(config.generators, count=max(1, generators.min, fits)))


def share_to_measure_on(device: str, gpus: int, processes: Sequence[float]) -> float:
    """The share of one GPU that a process may reserve to measure on: what a run's own processes leave, or 0.

    It is 0 for runs that compute on CPUs, even beside an idle GPU, which is another user's.

    Args:
        device: as the run's settings name it.
        gpus: that are free before the run's processes start.
        processes: the GPUs that each of them reserves.
    """
    if device not in ("auto", "cuda") or not any(processes):
        return 0.0
    most = max(free_shares(gpus, processes), default=0.0)
    return math.floor(most * 1e4 + 1e-6) / 1e4 if most >= SMALLEST_SHARE else 0.0  # Ray counts in ten-thousandths


def idle_gpus(device: str, processes: dict[str, float], nodes: Nodes) -> str | None:
    """A notice that GPUs stand idle, where no process reserves any and no other device is asked for; else None.

    Args:
        processes: the GPUs that a process of each role reserves, by the setting's name.
        nodes: that there are.
    """
    there = int(sum(node.get("GPU", 0.0) for node in nodes))
    if device != "auto" or not there or any(processes.values()):
        return None
    are = "a GPU is" if there == 1 else f"{there} GPUs are"
    shares = " ".join(f"--{name} 0.45" for name in processes)
    return f"{are} left idle, as no process reserves any: {shares} would use all, --device cpu says that none is meant"
