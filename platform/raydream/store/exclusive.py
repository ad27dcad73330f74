"""Exclusive writes: of any number of processes that write one file at the same moment, the first one wins.

A batch is committed by one generator, and a run in a store is used by one process, because their files are written so.
How a write becomes exclusive depends on where the file is:

- **On a disk** (`write_first`): the content goes to a temporary file, and `os.link` gives it its name. Unlike a
  rename, a link never replaces a file.
- **On `s3://`** (`put_first`): one PUT on the condition `If-None-Match: *`, which the store refuses where the file
  exists.
- **Elsewhere it does not**: on disks without hard links, in stores without conditional writes, and where boto3 is not
  installed, a writer looks whether the file exists, then writes. Of two that do so at the same moment, the later one
  wins.

pyarrow, which reads and writes all other files, has no conditional writes. boto3 has them for S3, and takes endpoint,
region and credentials from where pyarrow takes them.
"""

import errno
import functools
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pyarrow import fs

from raydream.errors import first_line
from raydream.store.atomic import write_through

NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP})
"""errors of disks without hard links"""
EXISTS, NOT_IMPLEMENTED = 412, 501
"""statuses of a store's answers to a conditional write: the file exists; the store has no conditional writes"""
PASSING = frozenset({408, 409, 429})
"""statuses below 500 after which a retry may succeed; 409: another write of the file is on its way"""


def write_first(path: Path, write: Callable[[Path], object]) -> bool:
    """Write a file of a disk as `write_atomically`, unless it exists.

    Returns:
        whether the file is this call's; also False if storage reported the failure of a link that had been made.
    """
    try:
        write_through(path, write, _name_first)
    except FileExistsError:
        return False
    return True


def put_first(system: fs.FileSystem, path: str, content: bytes) -> bool | None:
    """Write a file of a store, unless it exists.

    Args:
        path: within the file system: the bucket, a slash, the key.
        content: up to 5 GB.

    Returns:
        whether this call wrote it; also False if it did, but the store's answer was lost. None: the store has no
        conditional writes, or this process has no client for them; nothing was written.

    Raises:
        OSError: as for `atomic.retry_transient`.
    """
    if system.type_name != "s3" or find_spec("boto3") is None:
        return None
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.partition("/")
    try:
        _s3_client(*_s3_options(system)).put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in (EXISTS, NOT_IMPLEMENTED):
            return False if status == EXISTS else None
        final = 400 <= status < 500 and status not in PASSING
        raise OSError(errno.EACCES if final else errno.EIO, first_line(error), path) from error
    except BotoCoreError as error:  # no connection, among others
        raise OSError(errno.EIO, first_line(error), path) from error
    return True


def _name_first(temporary: Path, path: Path) -> None:
    """Rename a file to a path that does not exist yet; raises FileExistsError."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(path) from error
        temporary.replace(path)
    else:
        temporary.unlink()


def _s3_options(system: fs.FileSystem) -> tuple[tuple[str, Any], ...]:
    """Return a file system's options as those of boto3's client, which takes missing ones from the environment."""
    _, (known,) = system.__reduce__()  # what pickle gets; pyarrow has no other way to read them
    endpoint = known["endpoint_override"]
    if endpoint and "://" not in endpoint:
        endpoint = f"{known['scheme']}://{endpoint}"
    options = {
        "endpoint_url": endpoint,
        "region_name": known["region"],
        "aws_access_key_id": known["access_key"],
        "aws_secret_access_key": known["secret_key"],
        "aws_session_token": known["session_token"],
        "verify": known.get("tls_ca_file_path"),
    }
    return tuple((name, value) for name, value in options.items() if value)


@functools.cache
def _s3_client(*options: tuple[str, Any]) -> Any:
    import boto3

    # A session of its own: the one that boto3's functions share is not safe in threads, as a client is.
    return boto3.session.Session().client("s3", **dict(options))
