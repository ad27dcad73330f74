"""Files from the web, downloaded once into a cache and used only where their checksum is the expected one.

pooch downloads files here. It is small, SciPy and scikit-image fetch their data with it, and it needs only Ray's
dependencies. It downloads by `requests`, which honors the environment's proxies, follows redirects to http and https
alone, and notices a connection that was cut; the rest is then requested. torch.hub's downloader waits forever for a
silent server and never tries again; huggingface_hub knows one host. pooch's own cache is not used: it would repeat a
download for a wrong checksum or a missing page, and report a full disk as a plain OSError. `write_atomically` places
files here, as it does all others.
"""

import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from raydream.errors import DiskFullError, InputError, first_line
from raydream.memory import in_words
from raydream.store.atomic import temporary_name, write_atomically

if TYPE_CHECKING:
    import requests

HOME = "RAYDREAM_HOME"
"""environment variable with the folder of the cache"""
TIMEOUT_S = 30.0
"""longest silence of a server, in seconds"""
SAY_EVERY_S = 10.0
PIECE = 2**18
"""bytes that are written together"""
BUSY = frozenset({408, 425, 429})
"""statuses of a server, beside all from 500 on, after which a retry may succeed"""


def home() -> Path:
    """Return the folder of the cache: `$RAYDREAM_HOME`, by default ~/.cache/raydream."""
    return Path(os.environ.get(HOME) or "~/.cache/raydream").expanduser().absolute()


def cached_path(url: str, sha256: str) -> Path:
    """Return the path of a file in the cache: named by its checksum, and by its URL for readers.

    Args:
        sha256: of the file, 64 hexadecimal digits.
    """
    name = url.partition("?")[0].rpartition("/")[2]
    return home() / "weights" / f"{sha256[:12]}-{name[-100:]}"


def downloaded(url: str, sha256: str, field: str) -> Path:
    """Return the path of the file that a URL names, downloaded unless the cache holds it whole.

    Processes that download the same file at once do not disturb each other. Nothing in the file is executed.

    Args:
        url: http or https.
        sha256: of the file, 64 lower-case hexadecimal digits.
        field: the option's name, for the error.

    Raises:
        InputError: the file cannot be downloaded, has another checksum, or the cache cannot be used.
        DiskFullError: there is no space for it.
    """
    import pooch  # here, as a run with weights on the disk needs neither pooch nor requests

    path = cached_path(url, sha256)
    partial = path.with_name(temporary_name(path.name))  # outlives an attempt, whose own file does not
    value, allowed = f"{url}#sha256={sha256}", "the URL of a file that can be downloaded"

    def fetch(temporary: Path) -> None:
        _download(url, partial, path)
        if (found := pooch.file_hash(str(partial))) != sha256:
            remedy = (
                f"the file there has {found}: correct the URL or the checksum, and use no file that you do not trust"
            )
            raise InputError(field, value, "the URL of a file with this checksum", remedy)
        partial.replace(temporary)

    try:
        if not path.is_file() or pooch.file_hash(str(path)) != sha256:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, fetch)
    except _DownloadError as error:
        remedy = f"the download failed ({error.strerror}): get the file on another machine and put it at {path}"
        raise InputError(field, value, allowed, remedy) from error
    except DiskFullError:
        raise
    except OSError as error:
        remedy = f"the cache cannot be used ({first_line(error)}): set {HOME} to another folder"
        raise InputError(field, value, allowed, remedy) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


class _DownloadError(OSError):
    """Raised for a failed download; `write_atomically` retries if its errno is transient."""


def _download(url: str, partial: Path, path: Path) -> None:
    """Append to `partial` what it lacks of a file; all of it where the server cannot send a part."""
    import pooch
    import requests

    try:
        with partial.open("ab") as file:
            arrived = file.tell()

            def answered(response: "requests.Response", **_: object) -> None:
                if response.status_code == requests.codes.ok:  # and not "partial content"
                    file.truncate(0)

            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={arrived}-"} if arrived else {})
            given = {"timeout": TIMEOUT_S, "headers": headers, "hooks": {"response": answered}}
            download = pooch.HTTPDownloader(progressbar=_Progress(path), chunk_size=PIECE, **given)
            download(url, file, None)
    except requests.RequestException as error:
        cause = error.args[0] if error.args else error
        failure = getattr(cause, "reason", cause)  # which requests and urllib3 wrap where no connection was made
        passes = _passes(error) and failure is cause
        raise _DownloadError(errno.EIO if passes else errno.EINVAL, first_line(failure)) from error
    except ValueError as error:  # of a length that is no number
        raise _DownloadError(errno.EINVAL, first_line(error)) from error


def _passes(error: "requests.RequestException") -> bool:
    """Return whether the same request may succeed soon."""
    import requests

    if isinstance(error, requests.HTTPError):
        status = error.response.status_code
        return status >= 500 or status in BUSY
    unstable = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, unstable)


class _Progress:
    """Reports downloads and, every `SAY_EVERY_S`, their progress on standard error; called by pooch.

    Attributes:
        total: bytes of the file; 0 where the server does not say.
    """

    def __init__(self, path: Path) -> None:
        self.total = 0
        self._path, self._done, self._next_s = path, 0, 0.0

    def update(self, count: int) -> None:
        """Count the bytes that have arrived."""
        self._done, now = self._done + count, time.monotonic()
        if now < self._next_s:
            return
        size = in_words(self.total) if self.total else "unknown size"
        text = f"downloading {self._path} ({size})"
        if self._next_s:
            text = f"downloading {self._path.name}: {in_words(self._done)} of {size}"
        print(text, file=sys.stderr, flush=True)
        self._next_s = now + SAY_EVERY_S

    def reset(self) -> None:
        """Mark the file as complete."""
        self._next_s = float("inf")

    def close(self) -> None:
        """Do nothing, as nothing is held."""
