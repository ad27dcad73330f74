"""Folders on the disk, and in the stores that pyarrow's file systems reach (s3://, gs://, abfs://, hdfs://).

The durable files of a run are written through these: in both, a file is whole or absent.
"""

import contextlib
import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from raydream.errors import InputError, first_line
from raydream.memory import check_fits
from raydream.store.atomic import retry_transient, temporary_name, write_atomically
from raydream.store.exclusive import put_first, write_first

Result = TypeVar("Result")
Stamp = tuple[int, int]
"""size of a file, bytes, and its time of modification, ns since the epoch, by which a change of it is noticed"""

OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
"""stores where a file appears under its name when it is complete, and where renaming would copy it"""
FINAL = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET", "UNRECOGNIZED")
"""parts of a store's errors for which a retry does not help"""


class Folder(ABC):
    """A folder of files and folders; it need not exist before it is written to."""

    @abstractmethod
    def __truediv__(self, name: str) -> "Folder":
        """Return the folder of this name in it."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of its files, unordered; none if it does not exist. Raises OSError."""

    @abstractmethod
    def stamps(self) -> dict[str, Stamp]:
        """Return the stamps of its files by name, in one listing; none if it does not exist. Raises OSError."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Return the names of the folders in it, unordered; raises OSError."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Return whether it has a file of this name; raises OSError."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """Open a file to read from; raises FileNotFoundError, or OSError."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file at once, replacing one of the same name. Raises DiskFullError or OSError (`retry_transient`)."""

    @abstractmethod
    def write_first(self, name: str, content: bytes) -> bool:
        """Write a file unless one of this name exists, which stays unchanged; see `store/exclusive.py`.

        Returns:
            whether this call wrote the file. Where `is_exclusive` is false, two that write it at the same moment may
            both have True, and the file is the later one's.

        Raises:
            DiskFullError, OSError: as `write`.
        """

    def is_exclusive(self, name: str) -> bool:
        """Return whether of two processes that call `write_first` at the same moment one has True; raises OSError.

        A disk is assumed to have hard links; a store is tried.

        Args:
            name: of a file that exists, and that no other process writes; it stays unchanged.
        """
        return True

    @abstractmethod
    def rename(self, name: str, to: str) -> None:
        """Rename a file; raises OSError."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file if it exists; raises OSError."""

    @abstractmethod
    def move(self, to: str) -> None:
        """Rename the folder with all its content; raises OSError."""

    @abstractmethod
    def for_arrow(self) -> tuple[fs.FileSystem | None, str]:
        """Return the file system (None: the local one) and the path, for Arrow and Ray."""

    def read(self, name: str) -> bytes:
        """Read a file; raises FileNotFoundError, or OSError as `retry_transient` or if memory is too small."""
        content: bytes = retry_transient(lambda: self._content(name))
        return content

    def _content(self, name: str) -> bytes:
        with self.open(name) as file:
            try:
                check_fits(file.size())
            except ValueError as error:
                raise OSError(errno.EFBIG, f"{name} is too large: {error}") from error
            content: bytes = file.read()
            return content


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder of this machine, or of a file system that is mounted on it.

    Attributes:
        path: absolute.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "LocalFolder":
        return LocalFolder(self.path / name)

    def names(self) -> list[str]:
        return [each.name for each in self.path.iterdir() if each.is_file()] if self.path.is_dir() else []

    def stamps(self) -> dict[str, Stamp]:
        if not self.path.is_dir():
            return {}
        found = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # a temporary file
                    if entry.is_file():
                        status = entry.stat()
                        found[entry.name] = status.st_size, status.st_mtime_ns
        return found

    def folders(self) -> list[str]:
        return [each.name for each in self.path.iterdir() if each.is_dir()] if self.path.is_dir() else []

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def open(self, name: str) -> pa.NativeFile:
        path = self.path / name
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return pa.OSFile(os.fsencode(path))

    def write(self, name: str, content: bytes) -> None:
        self.path.mkdir(exist_ok=True)  # not its parent folder: if that is missing, so is the share or the run
        write_atomically(self.path / name, lambda temporary: temporary.write_bytes(content))

    def write_first(self, name: str, content: bytes) -> bool:
        self.path.mkdir(exist_ok=True)
        return write_first(self.path / name, lambda temporary: temporary.write_bytes(content))

    def rename(self, name: str, to: str) -> None:
        (self.path / name).replace(self.path / to)

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def move(self, to: str) -> None:
        self.path.replace(self.path.with_name(to))

    def for_arrow(self) -> tuple[fs.FileSystem | None, str]:
        return None, str(self.path)


@dataclass(frozen=True)
class RemoteFolder(Folder):
    """A folder that is reached by one of pyarrow's file systems.

    Attributes:
        scheme: of its URL.
        system: the file system, which can be sent to other processes, with its URL's endpoint and credentials.
        path: within that file system.
    """

    scheme: str
    system: fs.FileSystem
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"  # without a URL's credentials

    def __truediv__(self, name: str) -> "RemoteFolder":
        return RemoteFolder(self.scheme, self.system, f"{self.path}/{name}")

    def names(self) -> list[str]:
        return [info.base_name for info in self._listed(fs.FileType.File)]

    def stamps(self) -> dict[str, Stamp]:
        return {info.base_name: (info.size, info.mtime_ns or 0) for info in self._listed(fs.FileType.File)}

    def folders(self) -> list[str]:
        return [info.base_name for info in self._listed(fs.FileType.Directory)]

    def has(self, name: str) -> bool:
        info = _remotely(lambda: self.system.get_file_info(f"{self.path}/{name}"))
        return bool(info.type == fs.FileType.File)

    def open(self, name: str) -> pa.NativeFile:
        return _remotely(lambda: self.system.open_input_file(f"{self.path}/{name}"))

    def _content(self, name: str) -> bytes:
        # A file that is deleted between its opening and its reading is an error of no kind.
        return _once(lambda: super(RemoteFolder, self)._content(name))

    def write(self, name: str, content: bytes) -> None:
        if self.system.type_name in OBJECT_STORES:
            _remotely(lambda: self._put(name, content))
            return
        temporary = temporary_name(name)
        _remotely(lambda: self._put(temporary, content))
        self.rename(temporary, name)

    def write_first(self, name: str, content: bytes) -> bool:
        if self.has(name):  # asked in any case, as some stores ignore the condition of a write
            return False
        first = _remotely(lambda: put_first(self.system, f"{self.path}/{name}", content))
        if first is None:
            self.write(name, content)
        return first is not False

    def is_exclusive(self, name: str) -> bool:
        content = self.read(name)
        return _remotely(lambda: put_first(self.system, f"{self.path}/{name}", content)) is False

    def rename(self, name: str, to: str) -> None:
        _remotely(lambda: self.system.move(f"{self.path}/{name}", f"{self.path}/{to}"))

    def delete(self, name: str) -> None:
        if self.has(name):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                _remotely(lambda: self.system.delete_file(f"{self.path}/{name}"))

    def move(self, to: str) -> None:
        # Object stores have no folders to rename.
        other = f"{self.path.rpartition('/')[0]}/{to}"
        _remotely(lambda: fs.copy_files(self.path, other, self.system, self.system))
        _remotely(lambda: self.system.delete_dir(self.path))

    def for_arrow(self) -> tuple[fs.FileSystem | None, str]:
        return self.system, self.path

    def _listed(self, kind: fs.FileType) -> list[fs.FileInfo]:
        found = _remotely(lambda: self.system.get_file_info(fs.FileSelector(self.path, allow_not_found=True)))
        return [info for info in found if info.type == kind]

    def _put(self, name: str, content: bytes) -> None:
        if self.system.type_name not in OBJECT_STORES:
            self.system.create_dir(self.path)
        with self.system.open_output_stream(f"{self.path}/{name}") as stream:
            stream.write(content)


def folder_at(where: str | Path | Folder, field: str = "folder") -> Folder:
    """Return the folder that a path or a URL names; a folder is returned unchanged.

    Args:
        field: the option's name, for the error.

    Raises:
        InputError: a URL of a kind that pyarrow does not know, or one that names no bucket.
    """
    if isinstance(where, Folder):
        return where
    text = str(where)
    if "://" not in text:
        return LocalFolder(Path(where).absolute())
    allowed = "a path, or a URL such as s3://bucket/runs/first that pyarrow's file systems reach"
    try:
        system, path = fs.FileSystem.from_uri(text)
    except (OSError, pa.ArrowException) as error:
        raise InputError(field, text, allowed, first_line(error)) from error
    scheme = text.partition("://")[0]
    if scheme == "file":
        return LocalFolder(Path(path))
    if not path.strip("/"):
        raise InputError(field, text, allowed, "name a bucket, and a folder in it")
    return RemoteFolder(scheme, system, path.rstrip("/"))


def file_at(where: str) -> tuple[Folder, str]:
    """Return the folder and the name of the file that a path or a URL names; raises InputError as `folder_at`."""
    folder, _, name = where.rpartition("/") if "://" in where else (str(Path(where).parent), "/", Path(where).name)
    return folder_at(folder, "file"), name


def _remotely(action: Callable[[], Result]) -> Result:
    """Run an operation of a store, and retry it after transient errors."""
    return retry_transient(lambda: _once(action))


def _once(action: Callable[[], Result]) -> Result:
    """Run an operation of a store, and give a number to its transient errors, which only their text identifies."""
    try:
        return action()
    except OSError as error:
        if error.errno is not None or any(final in str(error) for final in FINAL):
            raise
        raise OSError(errno.EIO, first_line(error)) from error
