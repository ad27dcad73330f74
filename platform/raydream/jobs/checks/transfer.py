"""The checks of jobs/transfer.py before Ray starts."""

from dataclasses import dataclass
from typing import Any

from raydream.config import (
    TransferConfig,
)
from raydream.config.conversion import as_dict
from raydream.data import Dataset, check_data
from raydream.data.sources import Images
from raydream.jobs.checks.images import find_images, find_teacher
from raydream.jobs.checks.networks import check_student
from raydream.runs.compared import compared
from raydream.schedule import Epochs
from raydream.teachers.teacher import Teacher


@dataclass(frozen=True)
class CheckedTransfer:
    """The findings of a transfer's checks.

    Attributes:
        teacher: loaded from its checkpoint; None if it must be trained.
        images: to learn from; None if they are made first.
        epochs: passes over the images.
        data: real ones, to measure on.
        compared: earlier runs, see `runs/compared.py`.
    """

    teacher: Teacher | None
    images: Images | None
    epochs: Epochs
    data: Dataset | None
    compared: list[dict[str, Any]]


def check_transfer(config: TransferConfig) -> CheckedTransfer:
    """Load and probe the networks, and check that images and real data fit them.

    Raises:
        InputError: a checkpoint, a network, a set of images, real data or an earlier run that do not fit.
    """
    images, count = find_images(config)
    teacher = find_teacher(config, images)
    check_student(config)
    data, earlier = check_data(config.data, config.teacher), compared(as_dict(config), config.compare)
    return CheckedTransfer(teacher, images, Epochs(count, config.student.batch_size, config.epochs), data, earlier)
