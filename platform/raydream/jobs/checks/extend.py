"""The checks before a network learns new classes."""

from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from raydream.applications.continual.course import Group, load_groups
from raydream.applications.continual.measures import confusion_matrix
from raydream.applications.continual.methods import METHODS
from raydream.applications.continual.widening import check_widening, output_layer
from raydream.config import ContinualConfig, TeacherConfig
from raydream.data import check_data
from raydream.errors import InputError
from raydream.networks import build_teacher
from raydream.synthesis.checks import check_network
from raydream.teachers.checks import check_shapes
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher


@dataclass(frozen=True)
class CheckedContinual:
    """The findings of the checks.

    Attributes:
        teacher: loaded from its checkpoint; None if it must be trained.
        groups: real data of the teacher's classes, and of each step's.
    """

    teacher: Teacher | None
    groups: list[Group]


def check_continual(config: ContinualConfig, teacher: TeacherConfig) -> CheckedContinual:
    """Load and probe the teacher, read the data, and check that it can learn them by the selected methods.

    Args:
        teacher: with its checkpoint, wherever that is kept.

    Raises:
        InputError: a checkpoint, a network or data that do not fit, or a teacher that does not know its classes.
    """
    loaded = None if teacher.checkpoint is None else load_teacher(teacher)
    network = build_teacher(config.teacher).eval() if loaded is None else loaded.network
    check_shapes(network, config.teacher)
    check_widening(network, config.teacher)
    for name in config.methods:
        method = METHODS[name]
        if method.images == "made":
            synthesis = replace(config.synthesis, method=method.synthesizer)
            check_network(network, config.teacher, synthesis, trained=loaded is not None)
        if method.linear and not isinstance(
            network.get_submodule(output_layer(network, config.teacher.classes)), nn.Linear
        ):
            allowed = f"without {name}, which needs a linear output layer, for {config.teacher.network}"
            raise InputError("methods", list(config.methods), allowed, "leave it out")
    groups = load_groups(config)
    if loaded is None:
        check_data(config.data, config.teacher, train=True)
    else:
        _check_knowledge(config, loaded, groups[0])
    return CheckedContinual(loaded, groups)


def _check_knowledge(config: ContinualConfig, teacher: Teacher, group: Group) -> None:
    counts = confusion_matrix(teacher.network, teacher.normalization, group.validation, config.teacher.classes)
    share = np.trace(counts) / counts.sum()
    if share <= 1.1 / config.teacher.classes:
        allowed = "the classes that the teacher knows, in the order of its outputs"
        remedy = f"it names {share:.0%} of their validation images right, which is no better than chance"
        raise InputError("data.classes", list(config.data.classes), allowed, remedy)
