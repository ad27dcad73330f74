"""The pages of `--help`, made from the configuration classes: their types, ranges, defaults and docstrings."""

import ast
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from raydream.cli.settings import defaults_of
from raydream.commands import CommandEntry
from raydream.config.fields import Arguments
from raydream.errors import MistakeError

WIDTH = 112
"""number of characters of a line"""
PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", dict: "mapping", NoneType: "null"}
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
UNITS = {"_s": "s", "_mb": "MiB"}
"""units by the suffix of a setting's name"""


def help_page(entry: CommandEntry, kind: type, topic: str = "") -> str:
    """Return what `--help` prints for a command.

    Args:
        kind: its configuration class.
        topic: empty: a page of some 40 lines; a section: its settings; `all`: all settings.

    Raises:
        MistakeError: there is no such section.
    """
    sections: dict[str, Any] = {each.name: each.type for each in fields(kind) if _is_section(each.type)}
    if topic and topic != "all" and topic not in sections:
        raise MistakeError("--help", f"no section {topic!r}: --help takes all or one of {', '.join(sections)}.")
    if topic:
        defaults, parts = defaults_of(kind), [topic] if topic != "all" else list(sections)
        pages = [] if topic != "all" else ["\n".join(_in_full(kind, "", defaults))]
        pages += ["\n".join(_section(sections[name], name, defaults[name])) for name in parts]
        return "\n\n".join(pages)
    own = [each.name for each in fields(kind) if each.name not in sections]
    lines = [
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
        *_table(kind, own, defaults_of(kind)),
        "",
        f"sections, as --SECTION.SETTING VALUE (raydream {entry.name} --help SECTION):",
        *(f"  {name:12} {_first_sentence(of)}" for name, of in sections.items()),
    ]
    return "\n".join(lines)


def _table(kind: type, names: Sequence[str], defaults: dict[str, Any]) -> list[str]:
    """Return a line for each setting: name, type, range, default, and as much of its meaning as there is room for."""
    types, meanings = {each.name: each.type for each in fields(kind)}, _meanings(kind)
    rows = [(f"--{name}", *_columns(types[name], name, defaults[name])) for name in names]
    widths = [min(22, max(map(len, column))) for column in zip(*rows, strict=True)]
    lines = []
    for name, row in zip(names, rows, strict=True):
        cells = "  ".join(
            (cell if len(cell) <= width else f"{cell[: width - 3]}...").ljust(width)
            for cell, width in zip(row, widths, strict=True)
        )
        room = WIDTH - len(cells) - 4
        meaning = " ".join(meanings.get(name, "").split())
        lines.append(f"  {cells}  {textwrap.shorten(meaning, room, placeholder='...')}".rstrip())
    return lines


def _section(kind: type, prefix: str, defaults: dict[str, Any]) -> Iterator[str]:
    yield f"{prefix}: {inspect.cleandoc(kind.__doc__ or '').splitlines()[0]}"
    yield from _in_full(kind, f"{prefix}.", defaults)
    for each in fields(kind):
        if _is_section(each.type):
            yield ""
            yield from _section(each.type, f"{prefix}.{each.name}", defaults[each.name])  # type: ignore[arg-type]


def _in_full(kind: type, prefix: str, defaults: dict[str, Any]) -> Iterator[str]:
    """Return two or more lines for each setting: the columns, and its meaning below."""
    meanings = _meanings(kind)
    for each in fields(kind):
        if _is_section(each.type):
            continue
        name, limits, default = _columns(each.type, each.name, defaults[each.name])
        yield f"  --{prefix}{each.name:{max(1, 34 - len(prefix))}}  {name:22}  {limits:16}  default {default}".rstrip()
        yield from textwrap.wrap(
            " ".join(meanings.get(each.name, "").split()), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
        )


def _columns(of: Any, name: str, default: Any) -> tuple[str, str, str]:
    """Return type (with its unit), range, and default."""
    text, limits = _described(of)
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return f"{text}, {unit}" if unit else text, limits, _shown(default)


def _described(of: Any) -> tuple[str, str]:
    """Describe a type and its range in words; the range is empty if there is none."""
    origin, inner = get_origin(of), get_args(of)
    if of is Arguments:
        return "mapping", ""
    if origin is Annotated:
        text, limits = _described(inner[0])
        return text, ", ".join(_limits(inner[1:])) or limits
    if origin is Literal:
        return "|".join(map(str, inner)), ""
    if origin in (Union, UnionType):
        parts = [_described(each) for each in sorted(inner, key=lambda each: each is NoneType)]
        return " or ".join(text for text, _ in parts), next((limits for _, limits in parts if limits), "")
    if origin is tuple:
        text, limits = _described(inner[0])
        return (f"list of {text}" if inner[-1] is Ellipsis else f"[{', '.join([text] * len(inner))}]"), limits
    if isinstance(of, type) and is_dataclass(of):
        return "sections", ""
    return PLAIN.get(origin or of, "text"), ""


def _limits(notes: Sequence[Any]) -> Iterator[str]:
    """Return the bounds among the annotations of a type."""
    for note in notes:
        if isinstance(note, FieldInfo):
            yield from _limits(note.metadata)
        for name, sign in SIGNS.items():
            if (bound := getattr(note, name, None)) is not None:
                yield f"{sign} {bound:g}"


def _shown(default: Any) -> str:
    if isinstance(default, str):
        return default or '""'
    return json.dumps(default).replace('"', "")


def _meanings(kind: type) -> dict[str, str]:
    """Return the docstrings of a class's fields, including inherited ones."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not is_dataclass(each):
            continue
        tree = ast.parse(inspect.getsource(sys.modules[each.__module__]))
        (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == each.__name__)
        for field, after in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[ast.unparse(field.target)] = str(after.value.value)
    return found


def _is_section(of: Any) -> bool:
    return isinstance(of, type) and is_dataclass(of)


def _first_sentence(kind: Any) -> str:
    return textwrap.shorten(inspect.cleandoc(kind.__doc__ or "").splitlines()[0], WIDTH - 16, placeholder="...")
