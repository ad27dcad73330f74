"""The run folder: the place of one experiment on disk, and the rules by which it is begun and gone on with."""

import contextlib
import fcntl
import itertools
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from raydream.engine_version import ENGINE_VERSION
from raydream.errors import DocumentError, InputError, RaydreamError, first_line
from raydream.runs.lease import is_alive, leased
from raydream.runs.summary import Summary
from raydream.runs.summary import read as read_figures
from raydream.runs.working_copy import WorkingCopy
from raydream.store.atomic import TEMPORARY, remove_leftovers, write_json
from raydream.store.documents import is_moment, read_json, read_yaml
from raydream.store.folders import Folder, LocalFolder, folder_at
from raydream.store.yaml_files import write_yaml

Made = TypeVar("Made", bound=Summary)

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
TRIAL = ".writable-"
"""begins the name of a folder that shows that a folder may be written"""
BEGINNING = f".begin{TEMPORARY}"
"""lies in a folder in which a run is being begun: without the marker beside it, nothing is lost by beginning again"""


class TakenError(InputError):
    """A folder in which a run cannot be begun, as it holds one already, or something else."""


@dataclass(frozen=True)
class Marker:
    """What run.json says of a run.

    Attributes:
        run: its id.
        begun: seconds since the epoch; 0 where that was not noted.
        teacher: fingerprint of the teacher; empty where none was noted.
        working_directory: of the process that began the run, to which paths in its configuration are relative; empty
            where that was not noted (version 0.1).
        engine: version of the mathematics; 1 where that was not noted (version 0.1).
        job: that began it; empty where that was not noted (version 0.1).
    """

    run: str
    begun: float = 0.0
    teacher: str = ""
    working_directory: str = ""
    engine: int = 1
    job: str = ""


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
        """What went wrong and was repaired; see `runs/journal.py`."""
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
        """The student's checkpoints."""
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
    """runs/<experiment>/<timestamp>, and -2, -3, ... after it where that exists already."""
    first = Path("runs") / experiment / time.strftime("%Y%m%d-%H%M%S")
    later = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return str(next(path for path in itertools.chain([first], later) if not os.path.lexists(path)))


def check_new(where: str) -> None:
    """Refuse a path or URL where a run cannot be begun; nothing is left there.

    Raises:
        TakenError: it exists and is not an empty folder.
        InputError: it may not be written.
    """
    place = folder_at(where, "--run-dir")
    try:
        _check_free(place, where)
        # Access bits say nothing to root, nor on read-only or full file systems, nor in a store: try it.
        if isinstance(place, LocalFolder):
            _try_writing(place.path)
        else:
            place.write(BEGINNING, b"")
            place.delete(BEGINNING)
    except OSError as error:
        allowed = "in a folder that may be written"
        raise InputError("--run-dir", where, allowed, f"name another one ({first_line(error)})") from error


def _check_free(place: Folder, where: str) -> None:
    there = [*place.names(), *place.folders()]
    if not there or (not place.has(MARKER) and _may_be_begun_again(place, there)):
        return
    raise TakenError("--run-dir", where, "new or empty", "name another folder, or resume the run in it by --resume")


def _may_be_begun_again(place: Folder, there: list[str]) -> bool:
    """Whether a folder holds no more than a process that was killed, or is at that very point, has left in it."""
    if isinstance(place, LocalFolder):
        return BEGINNING in there or all(name == LOCK or name.startswith(TRIAL) for name in there)
    return set(there) <= {BEGINNING, "config.yaml"}


def _try_writing(path: Path) -> None:
    if path.exists() and not path.is_dir():
        remedy = "a file of that name is in the way: name another folder"
        raise InputError("--run-dir", str(path), "a folder", remedy)
    while not path.exists():
        path = path.parent
    with tempfile.TemporaryDirectory(dir=path, prefix=TRIAL):
        pass


def is_begun(where: str) -> bool:
    """Whether there is a run in this folder that can be gone on with, as far as its storage can be reached."""
    try:
        return folder_at(where).has(MARKER)
    except OSError:
        return False


def begin(where: str, config: dict[str, Any], job: str) -> RunFolder:
    """Make the folder of a new run and write its resolved configuration.

    Of several processes that begin a run in one folder at the same time, one succeeds. A store has no locks: there, two
    that do so within the same second may both succeed, and the lease ends one of them.

    Args:
        job: that begins it, for run.json.

    Raises:
        TakenError: another process has begun, or is beginning, a run in it; see `check_new`.
        InputError: see `check_new`.
    """
    check_new(where)  # before anything is made: a folder of another kind is left as it is
    taken = TakenError("--run-dir", where, "new or empty", "another process is beginning a run in it: name another one")
    noted: dict[str, Any] = {"format": FORMAT_VERSION, "run": f"{config['experiment']}-{uuid.uuid4().hex[:8]}"}
    noted |= {"job": job, "engine": ENGINE_VERSION, "begun": time.time(), "working_directory": str(Path.cwd())}
    try:
        folder = _opened(folder_at(where), noted["run"])
        folder.path.mkdir(parents=True, exist_ok=True)
        with _alone(folder.path, taken) if folder.copy is None else contextlib.nullcontext():
            _check_free(folder.place, where)  # what another process has begun since
            (folder.path / BEGINNING).touch()
            write_yaml(folder.config, config)
            write_json(folder.path / MARKER, noted)
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
        return read_marker(place).run, read_config(place)
    except FileNotFoundError as error:
        raise InputError(field, str(where), allowed, "there is no run in it, or no such folder") from error
    except (OSError, DocumentError) as error:
        raise InputError(field, str(where), allowed, f"reading it failed: {first_line(error)}") from error


def read_marker(place: Folder) -> Marker:
    """What run.json in a folder says.

    Raises:
        DocumentError: it is damaged, or of another format.
        OSError: it cannot be read, or there is none.
    """
    noted = read_json(place, MARKER)
    if not isinstance(noted, dict):
        raise DocumentError(f"{MARKER} describes no run")
    if (version := noted.get("format")) != FORMAT_VERSION:
        raise DocumentError(f"{MARKER} is of format {version}, not {FORMAT_VERSION}: use that version of raydream")
    known = {name: noted[name] for name in Marker.__dataclass_fields__ if name in noted}
    texts = (known.get("run"), *(known.get(name, "") for name in ("teacher", "working_directory", "job")))
    engine = known.get("engine", 1)
    if not (
        all(isinstance(text, str) for text in texts) and type(engine) is int and is_moment(known.get("begun", 0.0))
    ):
        raise DocumentError(f"{MARKER} holds values of other types, or a moment outside of the years 1970 to 2242")
    return Marker(**known)


def read_config(place: Folder) -> dict[str, Any]:
    """The configuration that a run was begun with; raises as `read_marker`."""
    config = read_yaml(place, "config.yaml")
    if not isinstance(config, dict):
        raise DocumentError("config.yaml holds no settings")
    return config


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
def _alone(path: Path, refused: InputError) -> Iterator[None]:
    """Hold a folder's lock for a `with` block, or raise `refused` where another process holds it."""
    # Neither what a link leads to is touched, nor a pipe waited for.
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise refused from error
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    remedy = "wait for its end, or stop it"
    with _alone(path, InputError("--resume", str(path), "a run that no other process is at work on", remedy)):
        remove_leftovers(path)
        try:
            yield
        finally:
            remove_leftovers(path)


def is_held(place: Folder) -> bool:
    """Whether a process is at work in a run's folder; in a store, a holder that was killed takes a while to tell.

    Raises:
        OSError: its lock, or the store, cannot be read.
    """
    if not isinstance(place, LocalFolder):
        return is_alive(place)
    try:
        lock = os.open(place.path / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def check_engine(folder: RunFolder) -> None:
    """Refuse to resume an unfinished run that another version of the mathematics began; a finished one is read.

    Raises:
        InputError: the rest of its images would not fit those that it has.
    """
    begun_with = read_marker(LocalFolder(folder.path)).engine
    if begun_with != ENGINE_VERSION and not folder.summary.exists():
        remedy = f"version {begun_with} began it: resume it with the raydream that began it, or begin a new run"
        raise InputError("--resume", folder.shown(), f"a run of engine version {ENGINE_VERSION}", remedy)


def check_teacher(folder: RunFolder, fingerprint: str) -> None:
    """Note whose images these are, or refuse another teacher than the run was begun with.

    Raises:
        InputError: the weights are not those of the first session.
    """
    here = LocalFolder(folder.path)
    begun_with = read_marker(here).teacher or fingerprint
    if begun_with != fingerprint:
        remedy = "the checkpoint has changed since: restore it, or begin a new run"
        raise InputError("--resume", folder.shown(), f"a run of the teacher {fingerprint}, not {begun_with}", remedy)
    write_json(folder.path / MARKER, read_json(here, MARKER) | {"teacher": fingerprint})


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


def read_summary(folder: RunFolder, kind: type[Made]) -> Made | None:
    """The final figures of a run that is done; None of one that is not.

    Args:
        kind: the schema of its job.

    Raises:
        RaydreamError: the file is there and damaged.
    """
    try:
        summary = read_json(LocalFolder(folder.path), SUMMARY)
        if not isinstance(summary, dict):
            raise DocumentError("it holds no figures")
        return read_figures(kind, summary)
    except FileNotFoundError:
        return None
    except DocumentError as error:
        raise RaydreamError(f"{folder.shown(SUMMARY)} is damaged ({error}); delete it and resume") from error
