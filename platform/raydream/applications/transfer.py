"""A student from scratch on a finished set of images, in one process and without Ray.

This is the reference that `raydream transfer` from memory must equal to the bit (with one Train worker), and the way to
train many small students side by side.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from raydream.buffer.sampler import permuted_epoch
from raydream.config import StudentConfig
from raydream.networks import build_student
from raydream.schedule import Epochs
from raydream.seeds import derive_seed
from raydream.students.distillation import Distiller
from raydream.students.learning import learn_epochs
from raydream.teachers.teacher import Teacher


def run_epochs(
    config: StudentConfig,
    teacher: Teacher,
    images: np.ndarray,
    epochs: int,
    seed: int,
    on_epoch: Callable[[int, nn.Module], None] = lambda epoch, student: None,
    build: Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """Distill a student on images; returns it in eval mode.

    Args:
        config: the student's configuration; settings of processes are ignored.
        images: uint8 [N,C,H,W], at least a batch.
        epochs: number of passes over them.
        seed: the run's seed.
        on_epoch: called with (epoch from 1, student) at the end of each.
        build: builds the student's network; None: as the configuration describes it.
    """
    over = Epochs(len(images), config.batch_size, epochs)
    torch.manual_seed(derive_seed(seed, "student weights"))
    student = (build() if build else build_student(config, teacher.config)).to(teacher.device)
    distiller = Distiller(teacher, student, config, over.total_steps, seed)

    def batches(epoch: int) -> Iterator[Tensor]:
        return (torch.from_numpy(images[rows]) for rows in permuted_epoch(seed, epoch, over.images, over.steps))

    learn_epochs(distiller, over, 0, batches, on_epoch=lambda epoch: on_epoch(epoch, distiller.learned))
    return distiller.learned.eval()
