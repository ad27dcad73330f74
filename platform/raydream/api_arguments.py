"""Converts arguments of the Python API to configurations, arrays and teachers, or rejects them in a sentence."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from raydream.config import DistillConfig, SynthesisConfig, TransferConfig
from raydream.config.conversion import Config, as_dict, validate
from raydream.data.image_set import ImageSet
from raydream.errors import InputError
from raydream.networks import build_student, check_python
from raydream.students.distillation import check_finite
from raydream.synthesis.balance import with_balance, with_numbers
from raydream.synthesis.checks import check_network
from raydream.targets import check_targets
from raydream.teachers.checks import check_pupil
from raydream.teachers.teacher import Teacher, make_teacher

Settings = Mapping[str, Any]
"""a section of a job's YAML file, by its names there"""
Pixels = ImageSet | np.ndarray | Tensor
"""synthetic images, or uint8 [N,C,H,W]"""
OnProgress = Callable[[float], None]
"""called with the share of the work that is done, in [0, 1]"""
GIVEN = "given"
"""name in a configuration for an object that the caller passes and no job has to find"""


def ignore_progress(share: float) -> None:
    """Ignore progress reports, for callers that request none."""


def as_settings(teacher: Teacher) -> dict[str, Any]:
    """Return the part of a configuration that all functions share; no job has to find this teacher, or data for it."""
    return {"teacher": as_dict(replace(teacher.config, checkpoint=teacher.config.checkpoint or GIVEN))}


def configured(
    kind: type[Config],
    settings: Settings,
    teacher: Teacher,
    defaults: Callable[[Settings], Settings] = lambda settings: {},
) -> Config:
    """Return a function's settings as a checked configuration, whose coefficients are all numbers; raises InputError.

    Args:
        kind: a job's configuration class, with the sections `teacher` and `synthesis`.
        settings: without the teacher.
        defaults: of the section `synthesis` if it makes images, such as `default_coefficients`.
    """
    beneath = defaults(settings).get("synthesis")
    if beneath:
        settings = {**settings, "synthesis": {**settings.get("synthesis", {}), **beneath}}
    config: Any = validate(kind, {**settings, **as_settings(teacher)})
    if config.synthesis.coefficients.automatic:
        check_invertible(teacher, replace(with_numbers(config.synthesis, {}), method="deepdream"))
        config = replace(config, synthesis=with_balance(teacher, config.synthesis, config.seed))
    return config  # type: ignore[no-any-return]


def on_cpu(teacher: Teacher) -> nn.Module:
    """Return a copy of the network on the CPU, for the checks, which send probes through it."""
    return copy.deepcopy(teacher.network).cpu()


def check_invertible(teacher: Teacher, synthesis: SynthesisConfig) -> None:
    """Check that images can be made of a teacher; raises InputError."""
    check_network(on_cpu(teacher), teacher.config, synthesis, trained=True)
    check_targets(synthesis.targets, teacher.config.classes)


def as_student(network: nn.Module | str, student: Settings | None) -> dict[str, Any]:
    """Return the section of a configuration that describes a student."""
    return {**(student or {}), "network": network if isinstance(network, str) else type(network).__name__}


def builder_of(
    network: nn.Module | str, config: DistillConfig | TransferConfig, teacher: Teacher
) -> Callable[[], nn.Module]:
    """Return a builder of a student's network, checked to take the teacher's images; raises InputError."""
    build: Callable[[], nn.Module] = functools.partial(build_student, config.student, config.teacher)
    if isinstance(network, nn.Module):
        check_python(network, "student.network", config.student.network)
        build = functools.partial(copy.deepcopy, network)
    check_pupil(build().cpu(), teacher.config, config.student.network)
    return build


def as_teacher(network: nn.Module, teacher: Teacher, config: DistillConfig | TransferConfig) -> Teacher:
    """Return a student as a teacher; raises DivergenceError if its weights are broken."""
    check_finite(network)
    student = config.student
    described_as = replace(
        teacher.config, network=student.network, arguments=student.arguments, statistics="", checkpoint=None
    )
    return make_teacher(network, described_as).to(teacher.device)


def pixels_of(images: Pixels, teacher: Teacher) -> np.ndarray:
    """Return images as uint8 [N,C,H,W] that the teacher takes; raises InputError."""
    found = images.images if isinstance(images, ImageSet) else np.asarray(images)
    shape = teacher.config.input_shape
    if found.ndim != 4 or found.shape[1:] != shape or found.dtype != np.uint8 or not len(found):
        allowed = f"uint8 [N,{','.join(map(str, shape))}], one image at least"
        remedy = "pixels are 0 to 255 here, and are normalized as the teacher says"
        raise InputError("images", f"{found.dtype} {list(found.shape)}", allowed, remedy)
    return found


def labels_of(
    labels: np.ndarray | Tensor | Sequence[int], count: int, first: int, classes: int | None = None
) -> np.ndarray:
    """Return labels as int64 [N], at least `first` and, if given, below `classes`; raises InputError."""
    found = np.asarray(labels)
    whole = found.shape == (count,) and found.dtype.kind in "iu"
    if not whole or (found < first).any() or (classes is not None and (found >= classes).any()):
        allowed = f"{count} whole numbers from {first} {'on' if classes is None else f'to {classes - 1}'}, one an image"
        seen = f", {found.min()} to {found.max()}" if found.size and found.dtype.kind in "iu" else ""
        raise InputError("labels", f"{found.dtype} {list(found.shape)}{seen}", allowed, "give one class per image")
    return found.astype(np.int64)


def new_labels_of(labels: np.ndarray | Tensor | Sequence[int], count: int, old: int) -> np.ndarray:
    """Return labels as int64 [N] of classes that follow the old ones without a gap; raises InputError."""
    found = labels_of(labels, count, old)
    if missing := sorted({*range(old, int(found.max()) + 1)} - {*found.tolist()}):
        raise InputError("labels", missing[0], f"there for each class from {old} on", "number the new classes in turn")
    return found
