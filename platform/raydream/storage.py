"""Files that are whole or absent: written aside, flushed to the disk, then renamed."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ASIDE = ".aside"
"""ending of a file that is still being written; whoever finds one after a crash may delete it"""


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in place of `path` at once.

    A reader sees the old file or the new one, and a crash leaves one of the two (and perhaps a file ending in
    `ASIDE`). Two writers of one path do not disturb each other; the later rename wins.

    Raises:
        OSError: the disk is full, the folder is gone or may not be written; `path` is then what it was.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{ASIDE}")
    try:
        write(aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside and rename; raises OSError."""
    text = json.dumps(value, indent=2) + "\n"
    write_aside(path, lambda aside: aside.write_text(text))


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML aside and rename, keys in their given order; raises OSError."""
    text = yaml.safe_dump(value, sort_keys=False)
    write_aside(path, lambda aside: aside.write_text(text))


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed writer left behind in a folder that nobody else writes to."""
    for aside in list(folder.rglob(f".*{ASIDE}")):
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may forget the rename, though the file's content is on the disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
