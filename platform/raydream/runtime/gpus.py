"""GPU use of a run: how many generators share the GPUs, what remains to measure on, and which stand idle."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from raydream.config import DistillConfig, FromImages, SynthesizeConfig
from raydream.runtime.placement import Nodes

Config = TypeVar("Config", bound=DistillConfig | SynthesizeConfig | FromImages)

SMALLEST_SHARE = 0.01
"""smallest share of a GPU that is worth measuring on"""


def free_shares(gpus: int, processes: Sequence[float]) -> list[float]:
    """Return the free share of each GPU with processes placed as by Ray: a fraction goes where it fits most tightly.

    Args:
        processes: GPUs that each one reserves; a process that finds no room is left out.
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
    """Return a run's settings with its number of generators, where `generators.count` is auto and they reserve GPUs.

    The number is limited by the GPUs' room beside the student, and by how many the method can keep busy.

    Args:
        making: how the images are made: the run's settings, or a part of them.
        nodes: the available nodes, here this machine.
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
    """Return a run's settings on this machine, see `with_generators`; reports GPUs that stand idle.

    Args:
        making: how the images are made; None if they exist already.
    """
    roles = {"generators": making and making.generators, "student": getattr(config, "student", None)}
    shares = {f"{name}.gpus": role.gpus for name, role in roles.items() if role}
    if notice := idle_gpus(config.device, shares, nodes):
        say(notice)
    return with_generators(config, making, nodes) if making else config


def uses_gpus(device: str, processes: Sequence[float]) -> bool:
    """Return whether any of a run's processes, which reserve these shares, computes on GPUs."""
    return device in ("auto", "cuda") and any(processes)


def share_to_measure_on(device: str, gpus: int, processes: Sequence[float]) -> float:
    """Return the share of one GPU that a process may reserve to measure on: what the run leaves free, or 0.

    The run's processes still find their places in any order in which Ray starts them: one that reserves at most `each`
    finds none only where every GPU holds as many of that size as fit. A run that computes on CPUs
    gets no idle GPU.

    Args:
        device: as the run's settings name it.
        gpus: free before the run's processes start.
        processes: the GPUs that each of them reserves.
    """
    if not uses_gpus(device, processes) or not gpus:
        return 0.0
    each, count = min(1.0, max(processes)), sum(math.ceil(share) for share in processes)
    beside = max(0, count - (gpus - 1) * math.floor(1 / each + 1e-9))
    left = round(1.0 - beside * each, 4)  # Ray counts in ten-thousandths
    return left if left >= SMALLEST_SHARE else 0.0


def idle_gpus(device: str, processes: dict[str, float], nodes: Nodes) -> str | None:
    """Return a notice that GPUs stand idle if no process reserves any and no other device is requested; else None.

    Args:
        processes: the GPUs that a process of each role reserves, by the setting's name.
        nodes: the available nodes.
    """
    there = int(sum(node.get("GPU", 0.0) for node in nodes))
    if device != "auto" or not there or any(processes.values()):
        return None
    are = "a GPU is" if there == 1 else f"{there} GPUs are"
    shares = " ".join(f"--{name} 0.45" for name in processes)
    return f"{are} left idle, as no process reserves any: add {shares} to use them, or --device cpu against this notice"
