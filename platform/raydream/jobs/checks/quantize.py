"""What is checked before a quantization starts."""

from dataclasses import dataclass

from raydream.config import QuantizeConfig
from raydream.data import Dataset, check_data
from raydream.data.sources import Images
from raydream.extras import require
from raydream.jobs.checks.images import check_images_fit, find_images, find_teacher
from raydream.networks import build_teacher
from raydream.quantization.checks import check_quantizable
from raydream.synthesis.checks import check_network
from raydream.targets import check_targets
from raydream.teachers.teacher import Teacher


@dataclass(frozen=True)
class CheckedQuantization:
    """What the checks of a quantization found out.

    Attributes:
        teacher: None where it is to be trained.
        images: to calibrate on and learn from; None where they are made first.
        count: of images.
        real: the real data to measure on; None where there are none.
    """

    teacher: Teacher | None
    images: Images | None
    count: int
    real: Dataset | None


def check_quantization(config: QuantizeConfig) -> CheckedQuantization:
    """Load and probe the teacher, and see that it can be quantized as asked, with these images.

    Raises:
        InputError: a checkpoint, a set of images or real data that do not fit, or a network that cannot be quantized.
        MistakeError: the extra `quantize` is not installed.
    """
    require("quantize", "quantizing")
    images, count = find_images(config)
    teacher = find_teacher(config, images)
    network = build_teacher(config.teacher) if teacher is None else teacher.network
    check_images_fit(images, config.teacher)
    if config.additions.rounds:
        check_network(network, config.teacher, config.synthesis, trained=teacher is not None)
        check_targets(config.synthesis.targets, config.teacher.classes)
    check_quantizable(network, config)
    return CheckedQuantization(teacher, images, count, check_data(config.data, config.teacher))
