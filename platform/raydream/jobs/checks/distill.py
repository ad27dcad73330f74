"""The checks of jobs/distill.py before Ray starts: the networks are usable, and the limiter can work."""

from dataclasses import dataclass

from raydream.buffer.limiter import Limiter, make_limiter
from raydream.config import (
    DistillConfig,
)
from raydream.data import Dataset, check_data
from raydream.jobs.checks.networks import check_student, check_teacher
from raydream.schedule import Schedule
from raydream.teachers.teacher import Teacher


@dataclass(frozen=True)
class Checked:
    """The findings of the checks, for the run to use.

    Attributes:
        teacher: loaded from its checkpoint; None if it must be trained.
        settle_steps: training steps until the student's BN statistics may be competed with.
        data: real ones, to measure on.
    """

    teacher: Teacher | None
    schedule: Schedule
    limiter: Limiter
    settle_steps: int
    data: Dataset | None


def check_run(config: DistillConfig) -> Checked:
    """Load and probe the networks, read the real data, and build the limiter.

    Raises:
        InputError: a checkpoint, network, method or schedule that cannot work, or data that cannot be obtained.
    """
    schedule = Schedule.of(config)
    teacher = check_teacher(config)
    settle_steps = check_student(config)
    data = check_data(config.data, config.teacher)
    return Checked(teacher, schedule, make_limiter(config, schedule, settle_steps), settle_steps, data)
