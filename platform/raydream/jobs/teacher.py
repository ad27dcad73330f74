"""The teacher of a run: loaded, found or trained, and kept in the run's folder."""

from collections.abc import Callable
from dataclasses import replace

import torch

from raydream.config import DataConfig, TeacherConfig, TrainingConfig
from raydream.runs import run_folder
from raydream.runs.run_folder import RunFolder
from raydream.supervised.library import trained_teacher
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher


def with_kept_teacher(teacher: TeacherConfig, resumed: RunFolder | None) -> TeacherConfig:
    """Return settings by which a resumed run takes the teacher from its own folder, wherever its checkpoint is."""
    return replace(teacher, checkpoint=str(resumed.teacher)) if resumed and resumed.teacher.exists() else teacher


def found_or_trained(
    loaded: Teacher | None,
    recipe: tuple[TeacherConfig, TrainingConfig, DataConfig],
    say: Callable[[str], None],
    device: torch.device,
) -> Teacher:
    """Return a teacher that was loaded, else the recipe's: from the library, or trained now and kept there.

    Args:
        loaded: from its checkpoint; None if it must be found in the library or trained by the recipe.
        say: called with a line about its origin, unless it was loaded.
        device: to train on, if it is trained.
    """
    if loaded is not None:
        return loaded
    teacher, found = trained_teacher(*recipe, device=device)
    origin = "found in" if found else "trained and kept in"
    say(f"teacher {teacher.fingerprint} {origin} {recipe[1].library}")
    return teacher


def keep_teacher(
    loaded: Teacher | None,
    recipe: tuple[TeacherConfig, TrainingConfig, DataConfig],
    folder: RunFolder,
    say: Callable[[str], None],
    device: torch.device,
) -> Teacher:
    """Return the run's teacher, and keep a copy of its weights in the run's folder; arguments as `found_or_trained`.

    Raises:
        InputError: it is not the one that the run was begun with.
    """
    teacher = found_or_trained(loaded, recipe, say, device)
    keep(teacher, folder)
    return teacher


def keep(teacher: Teacher, folder: RunFolder) -> None:
    """Put a copy of a teacher's weights into a run's folder; raises InputError as `keep_teacher` does."""
    run_folder.check_teacher(folder, teacher.fingerprint)
    if not folder.teacher.exists():
        save_network(teacher.network, folder.teacher)
    folder.save()
