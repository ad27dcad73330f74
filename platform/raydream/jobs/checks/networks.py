"""The checks of teacher and student: they fit each other and the run's settings."""

from raydream.config import (
    DistillConfig,
    SynthesizeConfig,
    TransferConfig,
)
from raydream.data import check_data
from raydream.networks import build_student, build_teacher
from raydream.students.distillation import steps_to_settle
from raydream.synthesis.checks import check_network
from raydream.targets import check_targets
from raydream.teachers.checks import check_pupil
from raydream.teachers.loading import load_teacher
from raydream.teachers.statistics import add_statistics
from raydream.teachers.teacher import Teacher


def check_teacher(config: DistillConfig | SynthesizeConfig) -> Teacher | None:
    """Load and probe the teacher, and check that it can be inverted as configured.

    Returns:
        the teacher; None if it must be trained.

    Raises:
        InputError: a checkpoint, network, method, stage or target that cannot work.
    """
    if config.teacher.checkpoint is None:
        teacher, network = None, build_teacher(config.teacher)
        add_statistics(network, config.teacher)
        check_data(config.data, config.teacher, train=True)
    else:
        teacher = load_teacher(config.teacher)
        network = teacher.network
    check_network(network, config.teacher, config.synthesis, trained=teacher is not None)
    check_targets(config.synthesis.targets, config.teacher.classes)
    return teacher


def check_student(config: DistillConfig | TransferConfig) -> int:
    """Check that the student takes the teacher's images and has its classes.

    Returns:
        training steps until its BN statistics may be competed with.

    Raises:
        InputError: it does not.
    """
    student = build_student(config.student, config.teacher)
    check_pupil(student, config.teacher, config.student.network)
    return steps_to_settle(student)
