"""List, show and copy the configurations, presets and search spaces that come with raydream."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from raydream.cli import run_tool
from raydream.errors import InputError, first_line
from raydream.shipped import description_of, file_named, shipped_files


def configs(words: Sequence[str]) -> int:
    """Run `raydream configs` with these arguments; returns the exit status."""
    parser = argparse.ArgumentParser(prog="raydream configs", description=__doc__, allow_abbrev=False)
    does = parser.add_subparsers(metavar="ls | show | cp", required=True)
    lists = does.add_parser("ls", help="a line for each", allow_abbrev=False)
    lists.set_defaults(does=_list)
    shows = does.add_parser("show", help="print one", allow_abbrev=False)
    copies = does.add_parser("cp", help="copy one, to adapt it", allow_abbrev=False)
    for each, action in ((shows, _show), (copies, _copy)):
        each.add_argument(
            "name", metavar="NAME", help="as `raydream configs ls` lists it, such as preset:cifar10_paper"
        )
        each.set_defaults(does=action)
    copies.add_argument("to", metavar="TO", nargs="?", type=Path, default=Path(), help="a folder, or the new file")
    return run_tool(parser, lambda given: given.does(given), words)


def _list(given: argparse.Namespace) -> None:
    files = shipped_files()
    width = max(map(len, files))
    for name, path in files.items():
        print(f"{name:{width}}  {description_of(path)}".rstrip())


def _show(given: argparse.Namespace) -> None:
    print(_named(given.name).read_text(encoding="utf-8"), end="")


def _copy(given: argparse.Namespace) -> None:
    path = _named(given.name)
    to = given.to
    try:
        to = to / path.name if to.is_dir() else to
        file = to.open("x", encoding="utf-8")
    except FileExistsError as error:
        raise InputError("TO", str(to), "a file that does not exist yet", "name another one") from error
    except OSError as error:
        remedy = f"writing there failed: {error.strerror or first_line(error)}"
        raise InputError("TO", str(to), "a folder, or a new file in one", remedy) from error
    with file:
        file.write(path.read_text(encoding="utf-8"))
    print(to)


def _named(name: str) -> Path:
    known = shipped_files()
    return known[name] if name in known else file_named(name, "NAME")
