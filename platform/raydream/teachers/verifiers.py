"""Verifiers: independent networks that classify the images."""

from collections.abc import Sequence

from raydream.config import TeacherConfig
from raydream.teachers.checks import check_shapes
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher


def load_verifiers(descriptions: str | Sequence[TeacherConfig]) -> list[Teacher]:
    """Load networks by their descriptions and probe each; raises InputError as `load_teacher` and `check_shapes` do.

    Args:
        descriptions: the descriptions, as the command line resolved them.
    """
    verifiers = []
    for index, description in enumerate(descriptions):
        assert isinstance(description, TeacherConfig)
        field = f"verifiers.{index}"
        verifier = load_teacher(description, field)
        check_shapes(verifier.network, description, field)
        verifiers.append(verifier)
    return verifiers
