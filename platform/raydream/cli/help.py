"""The pages of `--help`, made from the configuration classes: see `entries.py`."""

import textwrap
from collections.abc import Iterator
from typing import Any

from raydream.cli.entries import SettingEntry, entries_of, first_line, sections_of
from raydream.cli.settings import defaults_of
from raydream.commands import CommandEntry
from raydream.errors import MistakeError

WIDTH = 112
"""number of characters of a line"""
PAGE = 40
"""lines of the short page"""


def help_page(entry: CommandEntry, kind: type, topic: str = "") -> str:
    """Return what `--help` prints for a command.

    Args:
        kind: its configuration class.
        topic: empty: a page of at most `PAGE` lines; a section: its settings; `all`: all settings.

    Raises:
        MistakeError: there is no such section.
    """
    sections, defaults = sections_of(kind), defaults_of(kind)
    if topic and topic != "all" and topic not in sections:
        raise MistakeError("--help", f"no section {topic!r}: --help takes all or one of {', '.join(sections)}.")
    if topic:
        parts = [topic] if topic != "all" else list(sections)
        pages = [] if topic != "all" else ["\n".join(_in_full(kind, "", defaults))]
        pages += ["\n".join(_section(sections[name], name, defaults[name])) for name in parts]
        return "\n\n".join(pages)
    above = [
        f"usage: raydream {entry.name} [--config FILE ...] [--SETTING VALUE ...]",
        f"       raydream {entry.name} --resume DIR",
        "",
        *textwrap.wrap(entry.does, WIDTH),
        "",
        "examples:",
        *(f"  raydream {example}" for example in entry.examples),
        "",
        "options:",
        "  --config FILE      YAML file of settings, or the name of one that comes along (raydream configs ls)",
        "  --run-dir DIR      folder of the run, or its URL, as s3://bucket/first (default: runs/EXPERIMENT/TIME)",
        "  --resume DIR       resume the run in this folder",
        "  --track NAME       also send the curves to mlflow or wandb, or both: mlflow,wandb",
        "  --print-config     show all settings, and do nothing",
        "  --help [SECTION]   show this page, the settings of a section, or all",
        "",
        "settings:",
    ]
    below = [
        "",
        f"sections, as --SECTION.SETTING VALUE (raydream {entry.name} --help SECTION):",
        *(
            f"  {name:12} {textwrap.shorten(first_line(of), WIDTH - 16, placeholder='...')}"
            for name, of in sections.items()
        ),
    ]
    settings, room = entries_of(kind, defaults), PAGE - len(above) - len(below)
    shown = settings if len(settings) <= room else settings[: room - 1]
    rest = [f"  ... and {len(settings) - len(shown)} more: raydream {entry.name} --help all"]
    return "\n".join([*above, *_table(shown), *(rest if len(shown) < len(settings) else []), *below])


def _table(entries: list[SettingEntry]) -> list[str]:
    """Return a line for each setting: name, type, range, default, and as much of its meaning as there is room for."""
    rows = [(f"--{each.name}", _type(each), each.limits, each.default) for each in entries]
    widths = [min(22, max(map(len, column))) for column in zip(*rows, strict=True)]
    lines = []
    for each, row in zip(entries, rows, strict=True):
        cells = "  ".join(
            (cell if len(cell) <= width else f"{cell[: width - 3]}...").ljust(width)
            for cell, width in zip(row, widths, strict=True)
        )
        room = WIDTH - len(cells) - 4
        lines.append(f"  {cells}  {textwrap.shorten(each.meaning, room, placeholder='...')}".rstrip())
    return lines


def _section(kind: type, prefix: str, defaults: dict[str, Any]) -> Iterator[str]:
    yield f"{prefix}: {first_line(kind)}"
    yield from _in_full(kind, f"{prefix}.", defaults)
    for name, of in sections_of(kind).items():
        yield ""
        yield from _section(of, f"{prefix}.{name}", defaults[name])


def _in_full(kind: type, prefix: str, defaults: dict[str, Any]) -> Iterator[str]:
    """Return two or more lines for each setting: the columns, and its meaning below."""
    for each in entries_of(kind, defaults):
        columns = f"{_type(each):22}  {each.limits:16}  default {each.default}".rstrip()
        yield f"  --{prefix}{each.name:{max(1, 34 - len(prefix))}}  {columns}"
        yield from textwrap.wrap(each.meaning, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _type(entry: SettingEntry) -> str:
    return f"{entry.type}, {entry.unit}" if entry.unit else entry.type
