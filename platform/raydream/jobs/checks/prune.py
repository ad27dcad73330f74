"""What is checked before a pruning starts."""

from dataclasses import dataclass

from raydream.config import PruneConfig
from raydream.data import Dataset, check_data
from raydream.data.sources import Images
from raydream.jobs.checks.images import check_images_fit, find_images, find_teacher
from raydream.networks import build_teacher
from raydream.pruning.checks import check_prunable
from raydream.synthesis.checks import check_network
from raydream.targets import check_targets
from raydream.teachers.teacher import Teacher


@dataclass(frozen=True)
class CheckedPruning:
    """What the checks of a pruning found out.

    Attributes:
        teacher: None where it is to be trained.
        images: to prune with; None where they are made first.
        count: of images.
        real: the real data to measure on; None where there are none.
        note: which layers keep all their channels; empty where all can lose some.
    """

    teacher: Teacher | None
    images: Images | None
    count: int
    real: Dataset | None
    note: str


def check_pruning(config: PruneConfig) -> CheckedPruning:
    """Load and probe the teacher, and see that it can be pruned as asked, with these images.

    Raises:
        InputError: a checkpoint, a set of images or real data that do not fit, or a network that cannot lose channels
            or not as many.
    """
    images, count = find_images(config)
    teacher = find_teacher(config, images)
    network = build_teacher(config.teacher) if teacher is None else teacher.network
    check_images_fit(images, config.teacher)
    if config.additions.rounds:
        check_network(network, config.teacher, config.synthesis, trained=teacher is not None)
        check_targets(config.synthesis.targets, config.teacher.classes)
    note = check_prunable(network, config)
    return CheckedPruning(teacher, images, count, check_data(config.data, config.teacher), note)
