"""What jobs check before anything starts, without their command lines."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raydream.config import DistillConfig, TransferConfig
from raydream.config.conversion import validate
from raydream.data import check_data
from raydream.errors import InputError
from raydream.jobs.checks.networks import check_student, check_teacher
from raydream.jobs.checks.transfer import check_transfer
from raydream.networks.user_code import STATE
from raydream.runs import references as runs
from raydream.teachers.checkpoints import save_network
from tests.tiny import tiny_network

SECONDS = 20.0
"""that an answer may take on a busy machine; unpacking what these tests ask for takes minutes"""


def refusal(check: Callable[[], object]) -> InputError:
    """What is said: soon, in one sentence of a readable length, and the process is as it was."""
    before, began = {name: read() for name, (read, _) in STATE.items()}, time.monotonic()
    with pytest.raises(InputError) as refused:
        check()
    assert time.monotonic() - began < SECONDS
    assert {name: read() for name, (read, _) in STATE.items()} == before
    said = str(refused.value)
    assert "\n" not in said and len(said) < 2000, said
    return refused.value


def distill(**sections: dict[str, object]) -> None:
    """What jobs/distill.py checks of a teacher, a student and the data, and nothing else."""
    settings = {"teacher": {"arguments": {"width": 8}}, "student": {"arguments": {"width": 8}}}
    settings |= {name: settings.get(name, {}) | section for name, section in sections.items()}
    config = validate(DistillConfig, runs.resolve(settings))
    if "teacher" in sections:
        check_teacher(config)
    if "student" in sections:
        check_student(config)
    if "data" in sections:
        check_data(config.data, config.teacher)


def transfer(folder: Path, images: Path) -> None:
    """What jobs/transfer.py checks of the images, and of the teacher of foreign ones."""
    settings = {"images": str(images), "data": {"name": "none"}, "student": {"batch_size": 8}}
    settings["teacher"] = {"network": "images"}
    if not (images / "run.json").exists():
        save_network(tiny_network(), folder / "teacher.safetensors")
        settings["teacher"] = {"arguments": {"width": 8}, "checkpoint": str(folder / "teacher.safetensors")}
    check_transfer(validate(TransferConfig, runs.resolve(settings)))
