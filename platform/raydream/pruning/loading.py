"""The network that a pruning left, by one call."""

from raydream.config import TeacherConfig
from raydream.config.conversion import validate
from raydream.runs import references as runs
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher


def load_pruned(run: str) -> Teacher:
    """The network that a run of `raydream prune` has left, frozen and in eval mode, with what normalizes its images.

    Args:
        run: path or URL of the run's folder.

    Raises:
        InputError: there is no run in it that is done.
    """
    settings = runs.resolve({"teacher": {"network": f"{runs.OF_RUN}{run}"}})["teacher"]
    return load_teacher(validate(TeacherConfig, settings))
