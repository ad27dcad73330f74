"""The steps of the check, in order: the action, deadline and requirements of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raydream.errors import RaydreamError

Figures = dict[str, Any]
"""measurements of a step, in the types of JSON"""


class StepError(RaydreamError):
    """An error that a step has found.

    Args:
        message: the error, in a sentence.
        figures: figures measured nevertheless.
    """

    def __init__(self, message: str, figures: Figures) -> None:
        super().__init__(message)
        self.figures = figures


@dataclass(frozen=True)
class CheckStep:
    """One process of the check.

    Attributes:
        name: key of its result.
        does: description of its action, for the terminal.
        target: `module:function`; the function takes `device` and the options as keywords, and returns figures.
        deadline_s: seconds after which the process is killed.
        options: further keyword arguments, in the types of JSON.
        needs: keys of `ABSENT`; where one is missing, the step is skipped.
    """

    name: str
    does: str
    target: str
    deadline_s: float
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


ABSENT = {"cuda": "it needs a CUDA GPU", "ray": "it needs Ray"}
"""requirements of steps, keys of the figure `has` of the first step, with the reason for skipping a step without
them"""


def why_skipped(step: CheckStep, facts: Mapping[str, Any]) -> str | None:
    """Return the reason to skip a step; None where nothing is known to be missing.

    Args:
        facts: figures of the first step; empty where it failed, and then no step is skipped.
    """
    has = facts.get("has", {})
    return next((ABSENT[need] for need in step.needs if not has.get(need, True)), None)


_HERE = "raydream.device_check"
_SPEED = f"{_HERE}.speed"
_RUNTIME = "raydream.runtime.device_check"  # named, not imported: it imports Ray
_SMALL, _LARGE = {"network": "resnet20"}, {"network": "resnet50"}
_COMPILED = {"compiled": True}
_CUDA, _RAY = ("cuda",), ("ray", "cuda")

STEPS = (
    CheckStep("facts", "versions, devices, flags", f"{_HERE}.facts:facts", 60),
    CheckStep("rates", "matrix products, copies and launches a second", f"{_HERE}.facts:rates", 60),
    CheckStep("smoke", "each synthesizer, a distillation step, latency", f"{_HERE}.smoke:smoke", 90),
    CheckStep("resnet20_published", "ResNet-20, the published loop", f"{_SPEED}:published", 90, _SMALL),
    CheckStep("resnet20_engine", "ResNet-20, the engine, uncompiled", f"{_SPEED}:engine", 60, _SMALL),
    CheckStep(
        "resnet20_engine_compiled", "ResNet-20, the engine, compiled", f"{_SPEED}:engine", 150, _SMALL | _COMPILED
    ),
    CheckStep("resnet20_bare", "ResNet-20, a forward and a backward pass alone", f"{_SPEED}:bare", 60, _SMALL),
    CheckStep(
        "resnet20_bare_compiled", "ResNet-20, the same, compiled", f"{_SPEED}:bare", 120, _SMALL | _COMPILED, _CUDA
    ),
    CheckStep(
        "resnet20_graphed", "ResNet-20, in a CUDA graph", f"{_SPEED}:bare", 60, _SMALL | {"graphed": True}, _CUDA
    ),
    CheckStep("bits", "equal bits, in a process and in two", f"{_HERE}.bits:equal_bits", 150, {"deterministic": True}),
    CheckStep(
        "bits_by_default", "the same by default", f"{_HERE}.bits:equal_bits", 150, {"deterministic": False}, _CUDA
    ),
    CheckStep("resnet50_bare", "ResNet-50, a forward and a backward pass alone", f"{_SPEED}:bare", 60, _LARGE),
    CheckStep("resnet50_cold", "ResNet-50, compiled, cold cache", f"{_SPEED}:engine", 180, _LARGE | _COMPILED),
    CheckStep("resnet50_warm", "ResNet-50, compiled, warm cache", f"{_SPEED}:engine", 120, _LARGE | _COMPILED),
    CheckStep("memory", "a tenth of the memory that a batch takes", f"{_HERE}.memory:limited", 60, _LARGE, _CUDA),
    CheckStep(
        "syncs", "where a distillation step waits for the GPU", f"{_HERE}.syncs:distillation_syncs", 45, needs=_CUDA
    ),
    CheckStep("ray_student", "a student's process on the GPU", f"{_RUNTIME}:student", 120, needs=_RAY),
    CheckStep("ray_workers", "two workers of Ray Train on half a GPU each", f"{_RUNTIME}:workers", 120, needs=_RAY),
    CheckStep("ray_generators", "two generators on half a GPU each", f"{_RUNTIME}:generators", 120, needs=_RAY),
    CheckStep("resnet50_bare_compiled", "ResNet-50, bare, compiled", f"{_SPEED}:bare", 150, _LARGE | _COMPILED, _CUDA),
)
