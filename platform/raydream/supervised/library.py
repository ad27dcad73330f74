"""The teacher of a recipe: found in the library of trained teachers, or trained now."""

from dataclasses import replace

import torch

from raydream.config import DataConfig, TeacherConfig, TrainingConfig
from raydream.data import load_data
from raydream.supervised.training import CPU, train_teacher
from raydream.teachers.checkpoints import save_network
from raydream.teachers.loading import library_path, load_teacher
from raydream.teachers.statistics import add_statistics
from raydream.teachers.teacher import Teacher, make_teacher


def trained_teacher(
    config: TeacherConfig, training: TrainingConfig, data: DataConfig, device: torch.device = CPU
) -> tuple[Teacher, bool]:
    """Return the teacher of a recipe: from the library if it was trained before, else trained now.

    Args:
        device: see `train_teacher`.

    Returns:
        the teacher, and whether it was found.
    """
    path = library_path(config, training, data)
    if path.exists():
        return load_teacher(replace(config, checkpoint=str(path))), True
    real = load_data(data, config)
    if real is None:
        raise ValueError("there are no real data to train a teacher on")
    network = train_teacher(config, training, real.train, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, path)
    add_statistics(network, config)
    return make_teacher(network, config), False
