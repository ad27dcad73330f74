"""List the runs in a folder, show one, verify its images, and delete those that are unfinished or old."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import datetime

import yaml

from raydream.cli import run_tool
from raydream.errors import InputError, RaydreamError, first_line
from raydream.runs.run_list import ListedRun, delete, find_runs, prunable, read_run
from raydream.runs.summary import shown_figure
from raydream.store.folders import Folder, folder_at
from raydream.store.shards import ShardStore
from raydream.terminal import printable

MOST_LETTERS = 100
"""most characters of a table's cell, except a run's path"""
HEADINGS = ["run", "job", "state", "begun", "main figure", "size"]


def _list(given: argparse.Namespace) -> None:
    runs = find_runs(given.folder)
    _table([HEADINGS, *map(_row, runs)])
    print(f"{len(runs)} runs, {_size(sum(run.bytes or 0 for run in runs))} in all")


def _show(given: argparse.Namespace) -> None:
    run = read_run(given.run, "RUN")
    rows = dict(zip(HEADINGS, _row(run), strict=True))
    rows |= {"damage": run.damage, "id": run.run, "teacher": run.teacher}
    figures = {
        name: value if isinstance(value, str) else shown_figure(name, value)
        for name, value in (run.summary or {}).items()
        if isinstance(value, int | float | str)
    }
    _table([[name, value] for name, value in (figures | rows).items() if value != ""])
    print(yaml.safe_dump({"settings": dict(run.config)}, sort_keys=False), end="")


def _verify(given: argparse.Namespace) -> None:
    place = read_run(given.run, "RUN").place
    trials = place / "trials"  # a search has its images there, and those of its exam
    stores = [
        ShardStore(each) for each in (place / "images", place / "exam", *map(trials.__truediv__, trials.folders()))
    ]
    batches = sum(len(store.committed()) for store in stores)
    damaged = [error for store in stores for error in store.verify(again=True).values()]
    for error in damaged:
        print(printable(str(error)))
    if damaged:
        remedy = "resume the run to make those again that it still needs"
        raise RaydreamError(f"{len(damaged)} of {batches} shards are damaged: {remedy}")
    print(f"{batches} shards, all of them whole")


def _prune(given: argparse.Namespace) -> None:
    if not given.unfinished and given.older_than is None:
        allowed = "given with --unfinished, --older-than DAYS or both"
        raise InputError("runs prune", given.folder, allowed, "choose the runs to delete")
    root = folder_at(given.folder, "FOLDER")
    going, kept = prunable(find_runs(root), root, time.time(), given.unfinished, given.older_than, given.referred)
    for run, reason in kept:
        print(printable(f"kept: {run.where}, as {reason}"))
    if going:
        _table([HEADINGS, *map(_row, going)])
    deleted = [run for run in going if not given.yes or _deleted(run, root)]
    done = "deleted" if given.yes else "would be deleted; --yes does it"
    print(f"{len(deleted)} runs, {_size(sum(run.bytes or 0 for run in deleted))}: {done}")
    if len(deleted) < len(going):
        raise RaydreamError(f"{len(going) - len(deleted)} of {len(going)} runs could not be deleted")


def _deleted(run: ListedRun, root: Folder) -> bool:
    """Delete a run; if that fails, print the reason and continue with the others."""
    try:
        delete(run, root)
    except (RaydreamError, OSError) as error:
        print(printable(f"not deleted: {run.where}: {first_line(error)}"), file=sys.stderr)
        return False
    return True


def _row(run: ListedRun) -> list[str]:
    begun = f"{datetime.fromtimestamp(run.begun):%Y-%m-%d %H:%M}" if run.begun else ""
    figure = str(run.figure) if run.figure else ""
    return [run.where, run.job, run.state, begun, figure, "" if run.bytes is None else _size(run.bytes)]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _table(rows: Sequence[Sequence[str]]) -> None:
    shown = [[printable(cell, MOST_LETTERS if at else None) for at, cell in enumerate(row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _days(text: str) -> float:
    if (days := float(text)) >= 0:
        return days
    raise ValueError(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raydream runs", description=__doc__, allow_abbrev=False)
    does = parser.add_subparsers(metavar="list | show | verify | prune", required=True)
    folder = "folder of the runs, or its URL (default: runs)"
    lists = does.add_parser("list", help="a line for each run", allow_abbrev=False)
    lists.add_argument("folder", metavar="FOLDER", nargs="?", default="runs", help=folder)
    lists.set_defaults(does=_list)
    shows = does.add_parser("show", help="figures and settings of one run", allow_abbrev=False)
    shows.add_argument("run", metavar="RUN", help="its folder, or its URL")
    shows.set_defaults(does=_show)
    verifies = does.add_parser("verify", help="read every image of a run to its last byte", allow_abbrev=False)
    verifies.add_argument("run", metavar="RUN", help="its folder, or its URL")
    verifies.set_defaults(does=_verify)
    prunes = does.add_parser("prune", help="show which runs would be deleted, or delete them", allow_abbrev=False)
    prunes.add_argument("folder", metavar="FOLDER", nargs="?", default="runs", help=folder)
    prunes.add_argument("--unfinished", action="store_true", help="runs that are neither done nor in use by a process")
    older = "runs begun longer ago than that; with --unfinished: unfinished runs begun longer ago"
    prunes.add_argument("--older-than", metavar="DAYS", type=_days, help=older)
    referred = "also runs that others in FOLDER name in their settings, as run:DIR or by a path"
    prunes.add_argument("--referred", action="store_true", help=referred)
    prunes.add_argument("--yes", action="store_true", help="delete them, for good")
    prunes.set_defaults(does=_prune)
    return parser


def runs(words: Sequence[str]) -> int:
    """Run `raydream runs` with these arguments; returns the exit status."""
    return run_tool(_parser(), lambda given: given.does(given), words)
