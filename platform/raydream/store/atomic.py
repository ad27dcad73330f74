"""Files that are whole or absent: written to a temporary file, flushed to the disk, then renamed."""

import errno
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from raydream.errors import DiskFullError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

TEMPORARY = ".aside"
"""suffix of a file that is still being written; one left by a crash may be deleted"""


TRANSIENT = frozenset(
    {
        *(errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT),
        *(errno.ECONNRESET, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH),
    }
)
"""errors of storage, mainly network storage, after which a retry may succeed"""
WAITS_S = (0.1, 0.5, 2.0, 8.0)
"""seconds before each retry"""


def retry_transient(action: Callable[[], Result]) -> Result:
    """Run a storage operation, and retry it after a while if that may help.

    Args:
        action: the operation, which must be safe to repeat.

    Raises:
        OSError: of a kind other than `TRANSIENT`, or still after all of `WAITS_S`.
    """
    for wait_s in WAITS_S:
        try:
            return action()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            log.warning("reading or writing failed (%s); trying again in %g s", error, wait_s)
        time.sleep(wait_s)
    return action()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in place of `path` at once.

    A reader sees the old file or the new one, and a crash leaves one of the two (and perhaps a file ending in
    `TEMPORARY`). Two writers of one path do not disturb each other; the later rename wins.

    Args:
        write: called again after a transient storage error, see `retry_transient`.

    Raises:
        DiskFullError: there is no space for it; `path` is what it was, as with any other error.
        OSError: the folder is missing or not writable, or storage keeps failing.
    """
    write_through(path, write, Path.replace)


def write_through(path: Path, write: Callable[[Path], object], put: Callable[[Path, Path], object]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk, and let `put` name it `path`.

    Both are called again after a transient storage error; raises as `write_atomically`, and what `put` raises.
    """
    try:
        retry_transient(lambda: _write_once(path, write, put))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(f"no space is left for {path}: free some and resume; all else is kept") from error


def temporary_name(name: str) -> str:
    """Return the name of a temporary file, which no reader opens."""
    return f".{name}.{uuid.uuid4().hex[:8]}{TEMPORARY}"


def damaged_name(name: str) -> str:
    """Return the name of a damaged file in quarantine, which no reader opens."""
    return f"_damaged-{time.time_ns()}-{name}"


def _write_once(path: Path, write: Callable[[Path], object], put: Callable[[Path, Path], object]) -> None:
    temporary = path.with_name(temporary_name(path.name))
    try:
        write(temporary)
        _sync(temporary)
        put(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # Without this a power cut may undo the rename, though the file's content is on the disk.
    _sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON through a temporary file; raises OSError."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def link_or_copy(path: Path, to: Path) -> None:
    """Link a file that no process will change, or copy it if storage has no links; raises OSError."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of killed writers in a folder that no other process writes to."""
    for temporary in list(folder.rglob(f".*{TEMPORARY}")):
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def quarantine(path: Path) -> Path:
    """Rename a damaged file so that no reader opens it; returns its new path. Raises OSError."""
    return path.replace(path.with_name(damaged_name(path.name)))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)  # a link to another run's file may be read-only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
