"""Loads a pruned network by one call."""

from raydream.config import TeacherConfig
from raydream.config.conversion import validate
from raydream.runs import references as runs
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher


def load_pruned(run: str) -> Teacher:
    """Load the network of a `raydream prune` run, frozen and in eval mode, with its input normalization.

    Args:
        run: path or URL of the run's folder.

    Raises:
        InputError: the folder holds no completed run.
    """
    settings = runs.resolve({"teacher": {"network": f"{runs.OF_RUN}{run}"}})["teacher"]
    return load_teacher(validate(TeacherConfig, settings))
