"""Which GPUs a run uses: how many generators share them, what is left to measure on, and which stand idle."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from raydream.config import DistillConfig, FromImages, SynthesizeConfig
from raydream.runtime.placement import Nodes

Config = TypeVar("Config", bound=DistillConfig | SynthesizeConfig | FromImages)

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


def on_machine(
    config: Config, making: DistillConfig | SynthesizeConfig | None, nodes: Nodes, say: Callable[[str], None]
) -> Config:
    """A run's settings on this machine, see `with_generators`; says where its GPUs stand idle.

    Args:
        making: how the images are made; None where they are there already.
    """
    roles = {"generators": making and making.generators, "student": getattr(config, "student", None)}
    shares = {f"{name}.gpus": role.gpus for name, role in roles.items() if role}
    if notice := idle_gpus(config.device, shares, nodes):
        say(notice)
    return with_generators(config, making, nodes) if making else config


def uses_gpus(device: str, processes: Sequence[float]) -> bool:
    """Whether any of a run's processes computes on GPUs, of which each reserves so much."""
    return device in ("auto", "cuda") and any(processes)


def share_to_measure_on(device: str, gpus: int, processes: Sequence[float]) -> float:
    """The share of one GPU that a process may reserve to measure on: what a run's own processes leave, or 0.

    These still find their places in whatever order Ray starts them: one that reserves at most `each` fails to only
    where every GPU holds as many as fit of that size. A run that computes on CPUs gets no GPU that stands idle.

    Args:
        device: as the run's settings name it.
        gpus: that are free before the run's processes start.
        processes: the GPUs that each of them reserves.
    """
    if not uses_gpus(device, processes) or not gpus:
        return 0.0
    each, count = min(1.0, max(processes)), sum(math.ceil(share) for share in processes)
    beside = max(0, count - (gpus - 1) * math.floor(1 / each + 1e-9))
    left = round(1.0 - beside * each, 4)  # Ray counts in ten-thousandths
    return left if left >= SMALLEST_SHARE else 0.0


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
    return f"{are} left idle, as no process reserves any: add {shares} to use them, or --device cpu against this notice"
