"""The run folder: the place of one experiment on disk, and the rules by which it is begun and resumed."""

import contextlib
import fcntl
import itertools
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from raydream.config.tree import leaves
from raydream.engine_version import ENGINE_VERSION
from raydream.errors import DocumentError, InputError, RaydreamError, first_line
from raydream.runs.lease import is_alive, is_lease, leased
from raydream.runs.summary import Summary
from raydream.runs.summary import read as read_figures
from raydream.runs.working_copy import WorkingCopy
from raydream.store.atomic import TEMPORARY, remove_leftovers, write_json
from raydream.store.documents import is_moment, read_json, read_yaml
from raydream.store.folders import Folder, LocalFolder, folder_at
from raydream.store.yaml_files import write_yaml

log = logging.getLogger(__name__)

Made = TypeVar("Made", bound=Summary)

FORMAT_VERSION = 1
"""format of run folders; any other is rejected"""
MARKER = "run.json"
"""marks the folder of a run, with its id; written after its configuration"""
SUMMARY = "summary.json"
"""written when a run is done"""
TEACHER, STUDENT = "teacher.safetensors", "student.safetensors"
"""names of the weights in a run folder"""
NETWORK = "network.json"
"""describes the student's network where the configuration does not: a pruned one, or one with new classes"""
LOCK = ".lock"
"""lock of the process that uses a folder"""
TRIAL = ".writable-"
"""prefix of a folder that tests whether a folder is writable"""
BEGINNING = f".begin{TEMPORARY}"
"""file in a folder in which a run is being begun: without the marker beside it, the run can be begun again"""
NOT_EXCLUSIVE = (
    "%s has no conditional writes (those of s3:// need raydream[s3]): of two processes that commit one batch, or "
    "resume this run, at the same moment, the later one wins"
)


class TakenError(InputError):
    """Raised for a folder in which a run cannot be begun, as it holds one already, or other files."""


@dataclass(frozen=True)
class Marker:
    """The content of a run's run.json.

    Attributes:
        run: its id.
        begun: seconds since the epoch; 0 if unknown.
        teacher: fingerprint of the teacher; empty if unknown.
        working_directory: of the process that began the run, to which paths in its configuration are relative; empty
            if unknown (version 0.1).
        engine: version of the mathematics; 1 if unknown (version 0.1).
        job: the job that began the run; empty if unknown (version 0.1).
    """

    run: str
    begun: float = 0.0
    teacher: str = ""
    working_directory: str = ""
    engine: int = 1
    job: str = ""


@dataclass(frozen=True)
class RunFolder:
    """The paths within a run folder.

    Files of many processes are in the folder itself, wherever that is; files of the driver alone are in `path`.

    Attributes:
        place: the folder.
        run: id of the run, also its Ray namespace.
        path: the folder's absolute path; for a folder in a store, that of a working copy on this machine.
        copy: the working copy; None if none is needed.
    """

    place: Folder
    run: str
    path: Path
    copy: WorkingCopy | None = None

    def save(self) -> None:
        """Copy what the driver wrote since the last call into the store; raises OSError."""
        if self.copy is not None:
            self.copy.save()

    def shown(self, name: str = "") -> str:
        """Return the path of the folder, or of a file in it, for the user: relative if below the working directory."""
        return f"{self.place}/{name}".rstrip("/").removeprefix(f"{Path.cwd()}/")

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def images(self) -> Folder:
        """Return the folder of the committed shards."""
        return self.place / "images"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.parquet"

    @property
    def journal(self) -> Path:
        """Return the path of the journal of failures and repairs; see `runs/journal.py`."""
        return self.path / "journal.jsonl"

    @property
    def summary(self) -> Path:
        """Return the path of the summary, written last except for the report: a run that has it is done."""
        return self.path / SUMMARY

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def events(self) -> Path:
        """Return the folder of the run's own events, whose name is the name that TensorBoard shows: the run's id."""
        return self.tensorboard / self.run

    @property
    def checkpoints(self) -> Folder:
        """Return the folder of the student's checkpoints."""
        return self.place / "checkpoints"

    @property
    def snapshots(self) -> Folder:
        """Return the folder of the snapshots that batches competed with, kept if batches must be repeatable."""
        return self.place / "snapshots"

    @property
    def teacher(self) -> Path:
        """Return the path of a copy of the teacher's weights, by which a run can be resumed wherever its folder is."""
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
    """Return runs/<experiment>/<timestamp>, with -2, -3, ... appended if that exists already."""
    first = Path("runs") / experiment / time.strftime("%Y%m%d-%H%M%S")
    later = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return str(next(path for path in itertools.chain([first], later) if not os.path.lexists(path)))


def check_new(where: str) -> None:
    """Reject a path or URL where a run cannot be begun; leaves nothing there.

    Raises:
        TakenError: it exists and is not an empty folder.
        InputError: it may not be written.
    """
    place = folder_at(where, "--run-dir")
    try:
        _check_free(place, where)
        # Access bits are no evidence for root, on read-only or full file systems, or in a store: try it.
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
    """Return whether a folder holds only what a process that began a run, and may have been killed, has left in it."""
    if isinstance(place, LocalFolder):
        return BEGINNING in there or all(name == LOCK or name.startswith(TRIAL) for name in there)
    return {name for name in there if not is_lease(name)} <= {BEGINNING, "config.yaml"}


def _try_writing(path: Path) -> None:
    if path.exists() and not path.is_dir():
        remedy = "a file of that name is in the way: name another folder"
        raise InputError("--run-dir", str(path), "a folder", remedy)
    while not path.exists():
        path = path.parent
    with tempfile.TemporaryDirectory(dir=path, prefix=TRIAL):
        pass


def is_begun(where: str) -> bool:
    """Return whether this folder holds a run that can be resumed, as far as its storage can be reached."""
    try:
        return folder_at(where).has(MARKER)
    except OSError:
        return False


def begin(where: str, config: dict[str, Any], job: str) -> RunFolder:
    """Make the folder of a new run and write its resolved configuration.

    Of several processes that begin a run in one folder at the same time, one succeeds. In a store whose writes are not
    exclusive (`store/exclusive.py`) two may succeed, and the lease ends one of them.

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
        with _alone(folder.path, taken) if folder.copy is None else leased(folder.place, taken):
            _check_free(folder.place, where)  # a run that another process began since
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
    """Open the run in a folder, to resume it.

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
    """Read which run is in a folder, without changing it.

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
        raise InputError(field, str(where), allowed, "the folder is missing or holds no run") from error
    except (OSError, DocumentError) as error:
        raise InputError(field, str(where), allowed, f"reading it failed: {first_line(error)}") from error


def read_marker(place: Folder) -> Marker:
    """Read run.json in a folder.

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
    """Read the configuration that a run was begun with; raises as `read_marker`."""
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
    """Reserve a run folder to this process for a `with` block, and delete temporary files of killed processes.

    In a store, the driver's files are fetched at its beginning, as another process may have written until it gave up
    the lease; at its end, however it ends, all of them are in the store, unless another process has taken the lease.

    Raises:
        InputError: another process is using it.
        RaydreamError: another process has taken the lease of a folder in a store.
        OSError: the store fails.
    """
    remedy = "wait for its end, or stop it"
    refused = InputError("--resume", str(folder.place), "a run that no other process is using", remedy)
    if folder.copy is None:
        with _locked(folder.path, refused):
            yield
        return
    with leased(folder.place, refused) as lost:
        folder.copy.fetch()
        if not folder.place.is_exclusive(MARKER):
            log.warning(NOT_EXCLUSIVE, folder.place)
        try:
            yield
        finally:
            if not lost.is_set():
                folder.save()


@contextlib.contextmanager
def _alone(path: Path, refused: InputError) -> Iterator[None]:
    """Hold a folder's lock for a `with` block, or raise `refused` if another process holds it."""
    # Neither follow a link nor wait for a pipe.
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refused from error
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _locked(path: Path, refused: InputError) -> Iterator[None]:
    with _alone(path, refused):
        remove_leftovers(path)
        try:
            yield
        finally:
            remove_leftovers(path)


def is_held(place: Folder) -> bool:
    """Return whether a process is using a run's folder; in a store, a killed holder takes a while to detect.

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
    """Reject resuming an unfinished run that another version of the mathematics began; a finished one can be read.

    Raises:
        InputError: the rest of its images would not fit those that it has.
    """
    begun_with = read_marker(LocalFolder(folder.path)).engine
    if begun_with != ENGINE_VERSION and not folder.summary.exists():
        remedy = f"version {begun_with} began it: resume it with the raydream that began it, or begin a new run"
        raise InputError("--resume", folder.shown(), f"a run of engine version {ENGINE_VERSION}", remedy)


def check_teacher(folder: RunFolder, fingerprint: str) -> None:
    """Note the teacher of the run's images, or reject a teacher other than the run was begun with.

    Raises:
        InputError: the weights are not those of the first session.
    """
    here = LocalFolder(folder.path)
    begun_with = read_marker(here).teacher or fingerprint
    if begun_with != fingerprint:
        remedy = "the checkpoint has changed since: restore it, or begin a new run"
        raise InputError("--resume", folder.shown(), f"a run of the teacher {fingerprint}, not {begun_with}", remedy)
    write_json(folder.path / MARKER, read_json(here, MARKER) | {"teacher": fingerprint})


def first_difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first setting, as a dotted name, in which two configurations differ, and its two values."""
    ours, theirs = leaves(one, empty=True), leaves(other, empty=True)
    pairs = [(name, ours.get(name), theirs.get(name)) for name in {**ours, **theirs}]
    different = [pair for pair in pairs if pair[1] != pair[2]]
    # Of an empty mapping and a filled one, what fills it says more.
    return min(different, key=lambda pair: {} in pair[1:], default=None)


def read_summary(folder: RunFolder, kind: type[Made]) -> Made | None:
    """Read the final figures of a run; None if it is not done.

    Args:
        kind: the schema of its job.

    Raises:
        RaydreamError: the file is damaged.
    """
    try:
        return read_figures(kind, read_json(LocalFolder(folder.path), SUMMARY))
    except FileNotFoundError:
        return None
    except DocumentError as error:
        raise RaydreamError(f"{folder.shown(SUMMARY)} is damaged ({error}); delete it and resume") from error
