"""Files that are whole or absent: written temporary, flushed to the disk, then renamed."""

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
"""ending of a file that is still being written; whoever finds one after a crash may delete it"""


TRANSIENT = frozenset(
    {
        *(errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT),
        *(errno.ECONNRESET, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH),
    }
)
"""errors of storage, of network storage above all, after which the same may succeed"""
NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP})
"""errors of storage that knows no hard links; two who write a file there in the same moment are not told apart"""
WAITS_S = (0.1, 0.5, 2.0, 8.0)
"""before it is tried again"""


def retry_transient(action: Callable[[], Result]) -> Result:
    """Do something with storage, and again after a while where that may help.

    Args:
        action: may be repeated without harm.

    Raises:
        OSError: of another kind than `TRANSIENT`, or still after all of `WAITS_S`.
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
        write: is called again where storage failed in passing, see `retry_transient`.

    Raises:
        DiskFullError: there is no space for it; `path` is what it was, as with any other error.
        OSError: the folder is gone or may not be written, or storage keeps failing.
    """
    _write_patiently(path, write, Path.replace)


def write_first(path: Path, write: Callable[[Path], object]) -> bool:
    """As `write_atomically`, but a file that is there already stays: of any number of writers, the first one's.

    Returns:
        whether it is this call's; False, too, where storage said that a rename failed which had gone through.
    """
    try:
        _write_patiently(path, write, _put_first)
    except FileExistsError:
        return False
    return True


def _write_patiently(path: Path, write: Callable[[Path], object], put: Callable[[Path, Path], object]) -> None:
    try:
        retry_transient(lambda: _write_once(path, write, put))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(f"no space is left for {path}: make some, and go on; all else is kept") from error


def temporary_name(name: str) -> str:
    """The name of a file that is still being written, which no reader looks at."""
    return f".{name}.{uuid.uuid4().hex[:8]}{TEMPORARY}"


def damaged_name(name: str) -> str:
    """The name under which a damaged file is kept, which no reader looks at."""
    return f"_damaged-{time.time_ns()}-{name}"


def _put_first(temporary: Path, path: Path) -> None:
    """Rename a file where nobody has put one yet; raises FileExistsError."""
    try:
        os.link(temporary, path)  # which, unlike a rename, never replaces
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(path) from error
        temporary.replace(path)
    else:
        temporary.unlink()


def _write_once(path: Path, write: Callable[[Path], object], put: Callable[[Path, Path], object]) -> None:
    temporary = path.with_name(temporary_name(path.name))
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        put(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON through a temporary file; raises OSError."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def link_or_copy(path: Path, to: Path) -> None:
    """Give a file that nobody will change a second name, or where storage cannot, a copy; raises OSError."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed writer left behind in a folder that nobody else writes to."""
    for temporary in list(folder.rglob(f".*{TEMPORARY}")):
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def quarantine(path: Path) -> Path:
    """Move a damaged file out of the way, to be looked at; returns where it is now. Raises OSError."""
    return path.replace(path.with_name(damaged_name(path.name)))


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may forget the rename, though the file's content is on the disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
