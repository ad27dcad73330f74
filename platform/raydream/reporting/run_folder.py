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

from raydream.errors import InputError, RaydreamError
from raydream.storage import ASIDE, remove_leftovers, write_json, write_yaml

FORMAT_VERSION = 1
"""of run folders; another is refused"""
BEGINNING = f".begin{ASIDE}"
"""lies in a folder in which a run is being begun: without a run.json beside it, nothing is lost by beginning again"""


@dataclass(frozen=True)
class RunFolder:
    """Paths of what a run folder holds.

    Attributes:
        path: the folder, absolute.
        run: id of the run, also its Ray namespace.
    """

    path: Path
    run: str

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def images(self) -> Path:
        """Folder of the committed shards."""
        return self.path / "images"

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
        return self.path / "summary.json"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Folder of Ray Train, with the student's checkpoints."""
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        """Folder of the students that batches were made against, where these must be repeatable to the bit."""
        return self.path / "snapshots"

    @property
    def teacher(self) -> Path:
        """A copy of the teacher's weights, so that a run can go on wherever its folder is."""
        return self.path / "teacher.safetensors"

    @property
    def student(self) -> Path:
        return self.path / "student.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report.html"


def default_path(experiment: str) -> Path:
    """runs/<experiment>/<timestamp>."""
    return Path("runs") / experiment / time.strftime("%Y%m%d-%H%M%S")


def check_new(path: Path) -> None:
    """Refuse a path where a run cannot be begun, without touching anything.

    Raises:
        InputError: it exists and is not an empty folder, or may not be written.
    """
    remedy = "name another folder, or go on with the run in it by --resume"
    if path.exists() and not path.is_dir():
        raise InputError("--run-dir", str(path), "a folder", "a file of that name is in the way: name another folder")
    killed_in_beginning = (path / BEGINNING).exists() and not is_begun(path)
    if path.is_dir() and any(path.iterdir()) and not killed_in_beginning:
        raise InputError("--run-dir", str(path), "new or empty", remedy)
    parent = path.absolute()
    while not parent.exists():
        parent = parent.parent
    try:
        # Access bits say nothing to root, nor on read-only or full file systems: try it.
        with tempfile.TemporaryDirectory(dir=parent):
            pass
    except OSError as error:
        allowed = "in a folder that may be written"
        raise InputError("--run-dir", str(path), allowed, f"name another one ({error})") from error


def is_begun(path: Path) -> bool:
    """Whether there is a run in this folder that can be gone on with."""
    return (path / "run.json").is_file()


def begin(path: Path, config: dict[str, Any]) -> RunFolder:
    """Make the folder of a new run and write its resolved configuration.

    Raises:
        InputError: see `check_new`.
    """
    check_new(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / BEGINNING).touch()
        folder = RunFolder(path.absolute(), f"{config['experiment']}-{uuid.uuid4().hex[:8]}")
        write_yaml(folder.config, config)
        write_json(path / "run.json", {"format": FORMAT_VERSION, "run": folder.run, "begun": time.time()})
        (path / BEGINNING).unlink()
    except OSError as error:
        raise InputError("--run-dir", str(path), "a folder that may be written", f"writing failed: {error}") from error
    return folder


def resume(path: Path, field: str = "--resume") -> tuple[RunFolder, dict[str, Any]]:
    """Find the run in a folder again.

    Args:
        field: the option's name, for the error.

    Returns:
        the folder, and the configuration it was begun with.

    Raises:
        InputError: there is no run of this format in it.
    """
    allowed = f"the folder of a run (format {FORMAT_VERSION})"
    try:
        marker = json.loads((path / "run.json").read_text())
        config = yaml.safe_load((path / "config.yaml").read_text())
        if marker["format"] != FORMAT_VERSION:
            raise InputError(field, str(path), allowed, f"it is of format {marker['format']}: use that version")
        folder = RunFolder(path.absolute(), str(marker["run"]))
        if not isinstance(config, dict):
            raise TypeError("config.yaml holds no settings")
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(field, str(path), allowed, f"reading it failed: {error}") from error
    return folder, config


@contextlib.contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """Keep a run folder to this process for a `with` block, and clear away what a killed one left half-written.

    Raises:
        InputError: another process is at work in it.
    """
    with (folder.path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            remedy = "wait for its end, or stop it"
            raise InputError("--resume", str(folder.path), "a run that nobody is at work on", remedy) from error
        remove_leftovers(folder.path)
        yield


def check_teacher(folder: RunFolder, fingerprint: str) -> None:
    """Note whose images these are, or refuse another teacher than the run was begun with.

    Raises:
        InputError: the weights are not those of the first session.
    """
    path = folder.path / "run.json"
    marker = json.loads(path.read_text())
    begun_with = marker.setdefault("teacher", fingerprint)
    if begun_with != fingerprint:
        remedy = "the checkpoint has changed since: restore it, or begin a new run"
        raise InputError("--resume", str(folder.path), f"a run of the teacher {fingerprint}, not {begun_with}", remedy)
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
        raise RaydreamError(f"{folder.summary} is damaged ({error}); delete it and resume") from error
    return summary
