"""Verifiers: independent networks that are asked what they see in images."""

from collections.abc import Sequence

from raydream.config import TeacherConfig
from raydream.teachers.checks import check_shapes
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher


def load_verifiers(descriptions: str | Sequence[TeacherConfig]) -> list[Teacher]:
    """Networks by their descriptions, each probed; raises InputError as `load_teacher` and `check_shapes` do.

    Args:
        descriptions: as the command line has resolved them.
    """
    verifiers = []
    for index, description in enumerate(descriptions):
        assert isinstance(description, TeacherConfig)
        field = f"verifiers.{index}"
        verifier = load_teacher(description, field)
        check_shapes(verifier.network, description, field)
        verifiers.append(verifier)
    return verifiers
