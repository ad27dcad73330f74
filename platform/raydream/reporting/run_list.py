"""The runs that lie in a folder: how they stand, which of them others refer to, and which may go."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raydream.errors import InputError
from raydream.folders import Folder, LocalFolder, folder_at
from raydream.reporting import run_folder
from raydream.reporting.catalogue import Figure, kind_of, main_figure
from raydream.reporting.run_folder import MARKER, SUMMARY, RunFolder
from raydream.reporting.runs import OF_RUN
from raydream.storage import aside_name

DEPTH = 4
"""folders within folders in which runs are looked for; a run's own folders are not"""
DONE, UNFINISHED, RUNNING, DAMAGED = "done", "unfinished", "running", "damaged"
"""states of a run; damaged: its description or its summary cannot be read"""
DAY_S = 86_400.0


@dataclass(frozen=True)
class ListedRun:
    """A run as it lies in its folder.

    Attributes:
        place: its folder.
        run: its id; empty where it cannot be read.
        begun: seconds since the epoch; 0 where that is not known.
        teacher: fingerprint of the teacher; empty where none was noted.
        config: the settings that it was begun with.
        summary: final figures; None where it is not done.
        state: done, unfinished, running or damaged.
    """

    place: Folder
    run: str
    begun: float
    teacher: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    state: str

    @property
    def where(self) -> str:
        """Path, relative to the working directory where it lies below it, or URL."""
        text = str(self.place)
        below = isinstance(self.place, LocalFolder) and self.place.path.is_relative_to(Path.cwd())
        return str(Path(text).relative_to(Path.cwd())) if below else text

    @property
    def job(self) -> str:
        """Name of the job that began it, or a question mark."""
        kind = kind_of(self.config)
        return kind.job if kind else "?"

    @property
    def figure(self) -> Figure | None:
        """The figure that its job is after; see `catalogue.main_figure`."""
        return main_figure(self.config, self.summary)

    @cached_property
    def bytes(self) -> int | None:
        """Of all its files, those that it shares with other runs in full; None in a store."""
        if not isinstance(self.place, LocalFolder):
            return None
        return sum(file.lstat().st_size for file in self.place.path.rglob("*") if file.is_file())


def read_run(where: str | Path | Folder, field: str) -> ListedRun:
    """How the run in a folder stands.

    Args:
        field: the option's name, for the error.

    Raises:
        InputError: there is no run in it.
    """
    place = folder_at(where, field)
    if not place.has(MARKER):
        raise InputError(field, str(where), "the folder of a run", f"there is no {MARKER} in it")
    try:
        run, config = run_folder.read(place, field)
        marker = json.loads(place.read(MARKER))
        summary = json.loads(place.read(SUMMARY)) if place.has(SUMMARY) else None
        if not isinstance(summary, dict | None):
            raise ValueError(f"{SUMMARY} holds no figures")
    except (InputError, OSError, ValueError):
        return ListedRun(place, "", 0.0, "", {}, None, DAMAGED)
    state = RUNNING if run_folder.is_held(place) else UNFINISHED if summary is None else DONE
    begun, teacher = float(marker.get("begun", 0.0)), str(marker.get("teacher", ""))
    return ListedRun(place, run, begun, teacher, config, summary, state)


def find_runs(where: str | Path | Folder, field: str = "FOLDER") -> list[ListedRun]:
    """All runs in a folder (or the one that it is of), those begun first first; raises InputError, or OSError."""
    found = [read_run(place, field) for place in run_places(folder_at(where, field))]
    return sorted(found, key=lambda run: (run.begun, str(run.place)))


def run_places(place: Folder, depth: int = DEPTH) -> Iterator[Folder]:
    """The folders of all runs below a folder, itself included; raises OSError."""
    if place.has(MARKER):
        yield place
    elif depth:
        for name in sorted(place.folders()):
            if name[0] not in "._":
                yield from run_places(place / name, depth - 1)


def references(runs: Sequence[ListedRun]) -> dict[str, list[str]]:
    """Which runs others name in their settings, as `run:DIR`, or by the path of something in them.

    Returns:
        where a run lies, to where those lie that name it.
    """
    known = {os.path.realpath(str(run.place)): run.where for run in runs}
    found: dict[str, list[str]] = {}
    for run in runs:
        named = set()
        for text in _texts(run.config):
            path = Path(os.path.realpath(text.removeprefix(OF_RUN)))
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


def prunable(
    runs: Sequence[ListedRun], now: float, unfinished: bool, older_than_days: float | None, referred: bool = False
) -> tuple[list[ListedRun], list[tuple[ListedRun, str]]]:
    """Which runs may be deleted.

    Args:
        now: seconds since the epoch.
        unfinished: only those that are not done.
        older_than_days: only those begun longer ago than that; None: whenever they were begun.
        referred: also those that another one refers to.

    Returns:
        those that may, and those that are kept though they were asked for, with the reason.
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
        else:
            going.append(run)
    return going, kept


def delete(run: ListedRun) -> None:
    """Delete a run's folder, which is gone at once for whoever looks.

    Raises:
        InputError: somebody is at work in it by now, or it is in a store.
        OSError: it may not be deleted.
    """
    place = run.place
    if not isinstance(place, LocalFolder):
        raise InputError("FOLDER", str(place), "a folder of this machine", "delete it by the store's own tools")
    with run_folder.held(RunFolder(place, run.run, place.path)):
        shutil.rmtree(place.path.rename(place.path.with_name(aside_name(place.path.name))))
