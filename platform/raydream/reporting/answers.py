"""The part of a page beside a run's images: the student's answers to them, and real images."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from raydream.config import DataConfig, StudentConfig, TeacherConfig
from raydream.config.conversion import validate
from raydream.data import Split, load_data
from raydream.errors import RaydreamError
from raydream.evaluation.accuracy import logits_of
from raydream.networks import build_network, build_student
from raydream.runs.run_folder import RunFolder
from raydream.store.documents import read_json
from raydream.store.folders import LocalFolder
from raydream.teachers.checkpoints import load_weights
from raydream.teachers.normalization import Normalization

MOST_VALUES = 3 * 64 * 64
"""values of an image up to which real ones are read again: those of larger data sets would take minutes"""

Section = TypeVar("Section")


def student_answers(folder: RunFolder, config: Mapping[str, Any], images: np.ndarray) -> np.ndarray | None:
    """Return the logits of a run's last student for images, float32 [N,K].

    It is built from the run's configuration as for any user of `run:DIR`, which calls a user's own factory.

    Args:
        config: the run's settings.
        images: uint8 [N,C,H,W].

    Returns:
        None where the run has no student, or it cannot be built or loaded here.
    """
    if not folder.student.exists():
        return None
    try:
        teacher = _section(TeacherConfig, config, "teacher")
        if folder.network.exists():
            own = read_json(LocalFolder(folder.path), folder.network.name)
            classes = own.get("classes", teacher.classes)
            network = build_network(own["network"], own.get("arguments", {}), teacher.input_shape[0], classes)
        else:
            network = build_student(_section(StudentConfig, config, "student"), teacher)
        load_weights(network, folder.student, "student", "student")
        normalization = Normalization(teacher.mean, teacher.std)
        logits = logits_of(network, normalization, images)
    except (RaydreamError, OSError, LookupError, TypeError, AttributeError, ValueError, RuntimeError):
        return None  # a page without these answers is better than none
    return logits if np.isfinite(logits).all() else None


def real_images(config: Mapping[str, Any]) -> Split | None:
    """Return the test split of a run's real data; None where it has none, or they are large or missing here.

    Nothing is downloaded.
    """
    try:
        teacher = _section(TeacherConfig, config, "teacher")
        if math.prod(teacher.input_shape) > MOST_VALUES:
            return None
        real = load_data(replace(_section(DataConfig, config, "data"), download=False), teacher)
        return real.test if real is not None else None
    except (RaydreamError, OSError, LookupError, TypeError, ValueError):
        return None


def _section(kind: type[Section], config: Mapping[str, Any], name: str) -> Section:
    return validate(kind, dict(config[name]))
