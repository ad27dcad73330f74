"""The run folder: the place of one experiment on disk, and the rules by which it is begun and gone on with."""

import contextlib
import fcntl
import json
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raydream.engine_version import ENGINE_VERSION
from raydream.errors import InputError, RaydreamError, first_line
from raydream.folders import Folder, LocalFolder, folder_at
from raydream.reporting.lease import is_alive, leased
from raydream.reporting.working_copy import WorkingCopy
from raydream.storage import ASIDE, remove_leftovers, write_json, write_yaml

FORMAT_VERSION = 1
"""of run folders; another is refused"""
MARKER = "run.json"
"""says that a folder is a run's, and which; written when its configuration is there"""
SUMMARY = "summary.json"
"""written when a run is done"""
TEACHER, STUDENT = "teacher.safetensors", "student.safetensors"
"""names of the weights in a run folder"""
NETWORK = "network.json"
"""describes the student's network where the configuration does not: a pruned one, or one with new classes"""
LOCK = ".lock"
"""held by the process that is at work in a folder"""
BEGINNING = f".begin{ASIDE}"
"""lies in a folder in which a run is being begun: without the marker beside it, nothing is lost by beginning again"""


@dataclass(frozen=True)
class RunFolder:
    """Where what a run folder holds is.

    What many processes write is in the folder itself, wherever that is; what the driver alone writes is in `path`.

    Attributes:
        place: the folder.
        run: id of the run, also its Ray namespace.
        path: the folder's own path, absolute; where it is in a store: of a working copy on this machine.
        copy: the working copy; None where there is no need of one.
    """

    place: Folder
    run: str
    path: Path
    copy: WorkingCopy | None = None

    def save(self) -> None:
        """Put what the driver has written since the last time into the store; raises OSError."""
        if self.copy is not None:
            self.copy.save()

    def shown(self, name: str = "") -> str:
        """The folder, or something in it, as a user finds it: below the working directory, by its path from there."""
        return f"{self.place}/{name}".rstrip("/").removeprefix(f"{Path.cwd()}/")

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def images(self) -> Folder:
        """Of the committed shards."""
        return self.place / "images"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.parquet"

    @property
    def journal(self) -> Path:
        """What went wrong and was mended; see `reporting/journal.py`."""
        return self.path / "journal.jsonl"

    @property
    def summary(self) -> Path:
        """Written last but for the report: a run that has it is done."""
        return self.path / SUMMARY

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Folder:
        """Of Ray Train, with the student's checkpoints."""
        return self.place / "checkpoints"

    @property
    def snapshots(self) -> Folder:
        """Of the students that batches were made against, where these must be repeatable to the bit."""
        return self.place / "snapshots"

    @property
    def teacher(self) -> Path:
        """A copy of the teacher's weights, so that a run can go on wherever its folder is."""
        return self.path / TEACHER

    @property
    def student(self) -> Path:
        return self.path / STUDENT

    @property
    def network(self) -> Path:
        return self.path / NETWORK

    @property
    def report(self) -> Path:
        return self.path / "report.html"


def default_path(experiment: str) -> str:
    """runs/<experiment>/<timestamp>."""
    return str(Path("runs") / experiment / time.strftime("%Y%m%d-%H%M%S"))


def check_new(where: str) -> None:
    """Refuse a path or URL where a run cannot be begun; nothing is left there.

    Raises:
        InputError: it exists and is not an empty folder, or may not be written.
    """
    place = folder_at(where, "--run-dir")
    try:
        there = [*place.names(), *place.folders()]
        if there and (place.has(MARKER) or not _killed_in_beginning(place, there)):
            remedy = "name another folder, or go on with the run in it by --resume"
            raise InputError("--run-dir", where, "new or empty", remedy)
        # Access bits say nothing to root, nor on read-only or full file systems, nor in a store: try it.
        if isinstance(place, LocalFolder):
            _try_writing(place.path)
        else:
            place.write(BEGINNING, b"")
            place.delete(BEGINNING)
    except OSError as error:
        allowed = "in a folder that may be written"
        raise InputError("--run-dir", where, allowed, f"name another one ({first_line(error)})") from error


def _killed_in_beginning(place: Folder, there: list[str]) -> bool:
    return BEGINNING in there if isinstance(place, LocalFolder) else set(there) <= {BEGINNING, "config.yaml"}


def _try_writing(path: Path) -> None:
    if path.exists() and not path.is_dir():
        remedy = "a file of that name is in the way: name another folder"
        raise InputError("--run-dir", str(path), "a folder", remedy)
    while not path.exists():
        path = path.parent
    with tempfile.TemporaryDirectory(dir=path):
        pass


def is_begun(where: str) -> bool:
    """Whether there is a run in this folder that can be gone on with, as far as its storage can be reached."""
    try:
        return folder_at(where).has(MARKER)
    except OSError:
        return False


def begin(where: str, config: dict[str, Any]) -> RunFolder:
    """Make the folder of a new run and write its resolved configuration.

    Raises:
        InputError: see `check_new`.
    """
    check_new(where)
    try:
        folder = _opened(folder_at(where), f"{config['experiment']}-{uuid.uuid4().hex[:8]}")
        folder.path.mkdir(parents=True, exist_ok=True)
        (folder.path / BEGINNING).touch()
        write_yaml(folder.config, config)
        marker = {"format": FORMAT_VERSION, "engine": ENGINE_VERSION, "run": folder.run, "begun": time.time()}
        write_json(folder.path / MARKER, marker)
        (folder.path / BEGINNING).unlink()
        folder.save()
    except OSError as error:
        remedy = f"writing failed: {first_line(error)}"
        raise InputError("--run-dir", where, "a folder that may be written", remedy) from error
    return folder


def resume(where: str, field: str = "--resume") -> tuple[RunFolder, dict[str, Any]]:
    """Find the run in a folder again.

    Args:
        field: the option's name, for the error.

    Returns:
        the folder, and the configuration it was begun with.

    Raises:
        InputError: there is no run of this format in it.
    """
    run, config = read(where, field)
    folder = _opened(folder_at(where), run)
    if folder.copy is not None:
        folder.copy.fetch()
    return folder, config


def read(where: str | Folder, field: str) -> tuple[str, dict[str, Any]]:
    """What run is in a folder, which is left alone.

    Args:
        field: the option's name, for the error.

    Returns:
        the run's id, and the configuration it was begun with.

    Raises:
        InputError: there is no run of this format in it.
    """
    allowed = f"the folder of a run (format {FORMAT_VERSION})"
    place = folder_at(where, field)
    try:
        marker, config = json.loads(place.read(MARKER)), yaml.safe_load(place.read("config.yaml"))
        if marker["format"] != FORMAT_VERSION:
            raise InputError(field, str(where), allowed, f"it is of format {marker['format']}: use that version")
        if not isinstance(config, dict):
            raise TypeError("config.yaml holds no settings")
        return str(marker["run"]), config
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(field, str(where), allowed, f"reading it failed: {error}") from error


def _opened(place: Folder, run: str) -> RunFolder:
    if isinstance(place, LocalFolder):
        return RunFolder(place, run, place.path)
    copy = WorkingCopy(place)
    return RunFolder(place, run, copy.path, copy)


@contextlib.contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """Keep a run folder to this process for a `with` block, and clear away what killed ones have left half-written.

    At the block's end, however it ends, all is in the folder that the driver has written.

    Raises:
        InputError: another process is at work in it.
    """
    with leased(folder.place) if folder.copy is not None else _locked(folder.path):
        try:
            yield
        finally:
            folder.save()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with (path / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            remedy = "wait for its end, or stop it"
            raise InputError("--resume", str(path), "a run that nobody is at work on", remedy) from error
        remove_leftovers(path)
        try:
            yield
        finally:
            remove_leftovers(path)


def is_held(place: Folder) -> bool:
    """Whether a process is at work in a run's folder; in a store, a holder that was killed takes a while to tell."""
    if not isinstance(place, LocalFolder):
        return is_alive(place)
    with contextlib.suppress(FileNotFoundError), (place.path / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check_engine(folder: RunFolder) -> None:
    """Refuse to resume an unfinished run that another version of the mathematics began; a finished one is read.

    Raises:
        InputError: the rest of its images would not fit those that it has.
    """
    begun_with = json.loads((folder.path / MARKER).read_text()).get("engine", 1)
    if begun_with != ENGINE_VERSION and not folder.summary.exists():
        remedy = f"version {begun_with} began it: resume it with the raydream that began it, or begin a new run"
        raise InputError("--resume", folder.shown(), f"a run of engine version {ENGINE_VERSION}", remedy)


def check_teacher(folder: RunFolder, fingerprint: str) -> None:
    """Note whose images these are, or refuse another teacher than the run was begun with.

    Raises:
        InputError: the weights are not those of the first session.
    """
    path = folder.path / MARKER
    marker = json.loads(path.read_text())
    begun_with = marker.setdefault("teacher", fingerprint)
    if begun_with != fingerprint:
        remedy = "the checkpoint has changed since: restore it, or begin a new run"
        raise InputError("--resume", folder.shown(), f"a run of the teacher {fingerprint}, not {begun_with}", remedy)
    write_json(path, marker)


def first_difference(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> tuple[str, Any, Any] | None:
    """The first setting, as a dotted name, in which two configurations differ, and its two values."""
    for key in [*one, *(key for key in other if key not in one)]:
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            inner = first_difference(a, b, f"{prefix}{key}.")
            if inner:
                return inner
        elif a != b:
            return f"{prefix}{key}", a, b
    return None


def read_summary(folder: RunFolder) -> dict[str, Any] | None:
    """The final figures of a run that is done; None of one that is not.

    Raises:
        RaydreamError: the file is there and damaged.
    """
    try:
        summary: dict[str, Any] = json.loads(folder.summary.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RaydreamError(
            f"{folder.shown(folder.summary.name)} is damaged ({error}); delete it and resume"
        ) from error
    return summary
