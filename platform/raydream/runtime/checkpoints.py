"""The checkpoints of a student's training: files in the run's folder, each named by the number of steps done."""

import io
import re
from collections.abc import Mapping
from typing import Any

import torch

from raydream.errors import first_line
from raydream.memory import is_out_of_memory
from raydream.store.atomic import damaged_name
from raydream.store.folders import Folder

KEPT = 2
"""checkpoints: the newest, and one before it, which a worker may be reading that has just begun"""
_NAME = re.compile(r"student-(\d{8,})\.pt")


def steps_saved(storage: Folder) -> int:
    """Return the number of distillation steps in the newest checkpoint; 0 if there is none."""
    return max(_steps(storage), default=0)


def write_checkpoint(storage: Folder, step: int, state: Mapping[str, Any]) -> None:
    """Commit a checkpoint and delete those that are no longer needed.

    Args:
        step: number of distillation steps done.
        state: tensors, numbers, and containers of these.

    Raises:
        DiskFullError: there is no space for it.
        OSError: storage keeps failing.
    """
    content = io.BytesIO()
    torch.save(dict(state), content)
    storage.write(_name(step), content.getvalue())
    for old in sorted(_steps(storage))[:-KEPT]:
        storage.delete(_name(old))


def read_checkpoint(storage: Folder, step: int) -> dict[str, Any]:
    """Read a checkpoint's state to the CPU. No pickle is executed; torch raises many kinds of errors for damage."""
    return _parsed(storage.read(_name(step)))


def quarantine_damaged_checkpoints(storage: Folder) -> str | None:
    """Quarantine all checkpoints if one is damaged; the student then starts from scratch, on all images.

    Returns:
        a sentence about the damage; None if there is none.

    Raises:
        OSError: the storage cannot be read, or memory is short, which is no damage.
    """
    for step in _steps(storage):
        content = storage.read(_name(step))
        try:
            _parsed(content)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            name = damaged_name("checkpoints")
            storage.move(name)
            return f"a checkpoint of the student is damaged ({first_line(error)}): they are kept as {name}"
    return None


def _parsed(content: bytes) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state


def _steps(storage: Folder) -> list[int]:
    return [int(found[1]) for name in storage.names() if (found := _NAME.fullmatch(name))]


def _name(step: int) -> str:
    return f"student-{step:08d}.pt"
