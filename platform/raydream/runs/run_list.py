"""The runs in a folder: their states, references between them, and which may be deleted."""

import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import ArrowException, fs

from raydream.errors import DocumentError, InputError, RaydreamError, first_line
from raydream.runs import run_folder
from raydream.runs.catalogue import job_of, main_figure
from raydream.runs.references import OF_RUN
from raydream.runs.run_folder import MARKER, SUMMARY, Marker, RunFolder
from raydream.runs.summary import Figure
from raydream.store.atomic import temporary_name
from raydream.store.documents import read_json
from raydream.store.folders import Folder, LocalFolder, folder_at

Part = TypeVar("Part")

DEPTH = 4
"""levels of folders in which runs are searched; the folders within a run are not searched"""
DONE, UNFINISHED, RUNNING, DAMAGED = "done", "unfinished", "running", "damaged"
"""states of a run; damaged: something in its folder cannot be read"""
MOUNTS = Path("/proc/self/mountinfo")
"""lists the mounts on Linux, folders of the same file system included"""
DAY_S = 86_400.0


@dataclass(frozen=True)
class ListedRun:
    """A run as found in its folder.

    Attributes:
        place: its folder.
        run: its id; empty if it cannot be read.
        begun: seconds since the epoch; 0 if unknown.
        teacher: fingerprint of the teacher; empty if unknown.
        config: the settings that it was begun with.
        summary: final figures; None if it is not done.
        state: done, unfinished, running or damaged.
        damage: what cannot be read, in a sentence; empty if nothing is damaged.
        working_directory: to which paths in its settings are relative; empty if unknown.
        noted_job: the job that began it, by run.json.
    """

    place: Folder
    run: str
    begun: float
    teacher: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    state: str
    damage: str = ""
    working_directory: str = ""
    noted_job: str = ""

    @property
    def where(self) -> str:
        """Return the run's path, relative to the working directory if below it, or its URL."""
        text = str(self.place)
        below = isinstance(self.place, LocalFolder) and self.place.path.is_relative_to(Path.cwd())
        return str(Path(text).relative_to(Path.cwd())) if below else text

    @property
    def job(self) -> str:
        """Return the name of the job that began it, or a question mark."""
        return job_of(self.config, self.noted_job) or "?"

    @property
    def figure(self) -> Figure | None:
        """Return the main figure of its job; see `catalogue.main_figure`."""
        return main_figure(job_of(self.config, self.noted_job), self.summary)

    @cached_property
    def bytes(self) -> int | None:
        """Return the size of all its files in bytes, including those shared with other runs; None in a store."""
        if not isinstance(self.place, LocalFolder):
            return None
        sizes = (entry.stat(follow_symlinks=False) for entry in _entries(self.place.path) if _is_file(entry))
        return sum(size.st_size for size in sizes)


def read_run(where: str | Path | Folder, field: str) -> ListedRun:
    """Read the state of the run in a folder.

    Args:
        field: the option's name, for the error.

    Raises:
        InputError: there is no run in it.
        OSError: the folder cannot be read.
    """
    place = folder_at(where, field)
    if not place.has(MARKER):
        raise InputError(field, str(where), "the folder of a run", f"there is no {MARKER} in it")
    damage: list[str] = []
    marker = _readable(lambda: run_folder.read_marker(place), Marker(""), damage)
    # Each separately: a run's references count when others are pruned, whatever else of it is damaged.
    nothing: dict[str, Any] = {}
    config = _readable(lambda: run_folder.read_config(place), nothing, damage)
    summary = _readable(lambda: _summary(place), None, damage)
    held = _readable(lambda: run_folder.is_held(place), False, damage)
    state = DAMAGED if damage else RUNNING if held else UNFINISHED if summary is None else DONE
    noted = marker.run, marker.begun, marker.teacher
    return ListedRun(place, *noted, config, summary, state, "; ".join(damage), marker.working_directory, marker.job)


def short_names(runs: Sequence[str]) -> list[str]:
    """Return the shortest distinct ends of paths; raises InputError where one is named twice."""
    places = [str(folder_at(run, "RUN")) for run in runs]
    for at, (run, place) in enumerate(zip(runs, places, strict=True)):
        if place in places[:at]:
            raise InputError("RUN", run, "each run once", "leave out what is named twice")
    parts = [str(run).rstrip("/").split("/") for run in runs]
    counts = range(1, max(map(len, parts)) + 1)
    named = (["/".join(each[-count:]) for each in parts] for count in counts)
    return next(names for names in named if len({*names}) == len(names))


def _readable(read: Callable[[], Part], otherwise: Part, damage: list[str]) -> Part:
    """Read a part of a run folder; if it cannot be read, add the reason to `damage`."""
    try:
        return read()
    except (OSError, DocumentError) as error:
        damage.append(first_line(error))
        return otherwise


def _summary(place: Folder) -> dict[str, Any] | None:
    try:
        summary = read_json(place, SUMMARY)
    except FileNotFoundError:
        return None
    if not isinstance(summary, dict):
        raise DocumentError(f"{SUMMARY} holds no figures")
    return summary


def find_runs(where: str | Path | Folder, field: str = "FOLDER") -> list[ListedRun]:
    """Find all runs in a folder (or the run that it holds), in order of their start; raises InputError or OSError.

    Folders in it that cannot be read are listed as damaged.
    """
    found = []
    for place in run_places(folder_at(where, field)):
        try:
            found.append(read_run(place, field))
        except OSError as error:
            found.append(ListedRun(place, "", 0.0, "", {}, None, DAMAGED, first_line(error)))
    return sorted(found, key=lambda run: (run.begun, str(run.place)))


def run_places(root: Folder, depth: int = DEPTH) -> Iterator[Folder]:
    """Return the folders of all runs below a folder, itself included, and folders below it that cannot be read.

    Links are followed, as a run that refers to another counts wherever it lies. A folder with several paths is read
    once: by its own path if it lies below `root`, which is why links come last.

    Raises:
        OSError: `root` cannot be read.
    """
    seen: set[str] = set()
    waiting, links = deque([(root, depth)]), deque[tuple[Folder, int]]()
    while waiting or links:
        place, left = (waiting or links).popleft()
        if (real := _real(place)) in seen:
            continue
        seen.add(real)
        try:
            is_run = place.has(MARKER)
            names = [] if is_run or not left else _folders(place)
        except OSError:
            if place == root:
                raise
            is_run, names = True, []
        if is_run:
            yield place
        inner = [(place / name, left - 1) for name in sorted(names) if name[0] not in "._"]
        links.extend(each for each in inner if _is_link(each[0]))
        waiting.extendleft(each for each in reversed(inner) if not _is_link(each[0]))


def _folders(place: Folder) -> list[str]:
    if not isinstance(place, LocalFolder):
        return place.folders()
    return [each.name for each in place.path.iterdir() if _is_folder(each)] if place.path.is_dir() else []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link that leads to where nothing can be looked up
        return False


def _is_link(place: Folder) -> bool:
    return isinstance(place, LocalFolder) and place.path.is_symlink()


def _real(place: Folder) -> str:
    """Return the path of a folder without links; for one in a store, a normalized URL, which is an equivalent key."""
    return os.path.realpath(str(place))


def references(runs: Sequence[ListedRun]) -> dict[str, list[str]]:
    """Find the runs that others name in their settings, as `run:DIR`, or by a path or file:// URL of something in them.

    Returns:
        for each such run's place, the places of the runs that name it.
    """
    known = {_real(run.place): run.where for run in runs}
    found: dict[str, list[str]] = {}
    for run in runs:
        named = set()
        for text in _texts(run.config):
            for path in map(Path, _named_paths(text, run)):
                named |= {known[str(each)] for each in (path, *path.parents) if str(each) in known}
        for other in named - {run.where}:
            found.setdefault(other, []).append(run.where)
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value and "\0" not in value:
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _named_paths(text: str, run: ListedRun) -> set[str]:
    """Return the paths, without links, that a text in a run's settings may name; none if it cannot name a file."""
    path = text.removeprefix(OF_RUN)
    if path.startswith("file://"):
        try:
            path = fs.FileSystem.from_uri(path)[1]
        except (OSError, ArrowException):
            return set()
    bases = [str(Path.cwd()), run.working_directory]
    # A run of version 0.1 does not record what its paths are relative to: a folder above it, most likely. A single
    # word is rather the name of a network or a method than a folder there.
    if not run.working_directory and isinstance(run.place, LocalFolder) and ("/" in path or path != text):
        bases += map(str, run.place.path.parents)
    try:
        return {os.path.realpath(Path(base, path)) for base in bases if base}
    except ValueError:  # half of a surrogate pair, which no path holds
        return set()


def prunable(
    runs: Sequence[ListedRun],
    root: Folder,
    now: float,
    unfinished: bool,
    older_than_days: float | None,
    referred: bool = False,
) -> tuple[list[ListedRun], list[tuple[ListedRun, str]]]:
    """Decide which runs may be deleted.

    Args:
        runs: all that `find_runs` found below `root`.
        now: seconds since the epoch.
        unfinished: only those that are not done.
        older_than_days: only those begun longer ago than that; None: all.
        referred: also those that another run refers to.

    Returns:
        the runs to delete, and those that match and are kept, with the reason.
    """
    named, going, kept = references(runs), [], []
    for run in runs:
        asked = (not unfinished or run.summary is None) and (
            older_than_days is None or now - run.begun > older_than_days * DAY_S
        )
        if not asked:
            continue
        if run.state in (RUNNING, DAMAGED):
            kept.append((run, f"it is {run.state}"))
        elif run.where in named and not referred:
            kept.append((run, f"{', '.join(named[run.where])} refers to it"))
        elif reason := obstacle(run, root):
            kept.append((run, reason))
        else:
            going.append(run)
    return going, kept


def obstacle(run: ListedRun, root: Folder) -> str:
    """Return why deleting a run below `root` would harm something else; empty if it would not."""
    if not isinstance(run.place, LocalFolder):
        return "it is in a store: delete it by the store's own tools"
    path, below = Path(_real(run.place)), Path(_real(root))
    if not path.is_relative_to(below):
        return f"it lies outside of that folder, in {path}"
    if mounts := mounts_below(path, below):
        return f"something else is mounted at {mounts[0]}"
    inner = [Path(entry.path).parent for entry in _entries(path) if entry.name == MARKER]
    if others := [each for each in inner if each != path]:
        return f"another run lies in it, in {others[0].relative_to(path)}"
    return ""


def mounts_below(path: Path, root: Path | None = None) -> list[str]:
    """Return the mount points in a folder, or on the path to it from `root` (default: the folder itself).

    Args:
        path, root: absolute, without links.
    """
    try:
        paths = (line.split()[4] for line in MOUNTS.read_bytes().splitlines())
        mounts = [re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), each) for each in paths]
        points = [Path(os.fsdecode(each)) for each in mounts]
    except OSError:  # not Linux, where folders cannot be mounted on others
        inner = [Path(entry.path) for entry in _entries(path) if entry.is_dir(follow_symlinks=False)]
        points = [each for each in (path, *path.parents, *inner) if os.path.ismount(each)]
    between = {
        each for each in (path, *path.parents) if root is not None and each.is_relative_to(root) and each != root
    }
    return sorted(str(point) for point in points if point in between or (point != root and point.is_relative_to(path)))


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """Yield all entries of a folder at any depth, without following links; skips entries that vanish meanwhile."""
    waiting = [str(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                found = list(entries)
        except OSError:
            continue
        waiting += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
        yield from found


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)


def delete(run: ListedRun, root: Folder) -> None:
    """Delete the folder of a run below `root`; readers see it whole or not at all.

    Raises:
        InputError: it is running, has ended since it was listed, or something else would be harmed; see `obstacle`.
        OSError: it may not be deleted.
        RaydreamError: not all of it could be deleted, or its folders are nested too deeply.
    """
    if reason := obstacle(run, root):
        raise InputError("FOLDER", run.where, "a folder of this machine that holds one run and nothing else", reason)
    path = Path(_real(run.place))
    try:
        with run_folder.held(RunFolder(LocalFolder(path), run.run, path)):
            if (path / SUMMARY).exists() != (run.summary is not None):
                raise InputError(
                    "FOLDER", run.where, "as it was when it was listed", "it has ended since: list the runs again"
                )
            temporary = path.rename(
                path.with_name(temporary_name("pruned"))
            )  # its name may already have the maximum length
            try:
                shutil.rmtree(temporary)
            except OSError as error:
                raise RaydreamError(f"{temporary} could not be deleted entirely: {first_line(error)}") from error
    except RecursionError as error:
        raise RaydreamError("folders in it are nested too deeply: delete it by other means, such as rm -r") from error
