"""Entries of a reference of settings, made from the configuration classes: types, ranges, defaults and docstrings.

`--help` prints them, and the documentation shows them, so neither can differ from the code.
"""

import ast
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from raydream.config.fields import Arguments

PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", dict: "mapping", NoneType: "null"}
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
SUFFIXES = {"_s": "s", "_mb": "MiB"}
"""units by the suffix of a setting's name"""
UNITS = {
    **dict.fromkeys(("cutout", "jitter", "shift", "size"), "pixels"),
    **dict.fromkeys(("batch_size", "calibration_images", "chunk_size", "images_per_class", "new_images"), "images"),
    "latency_batch_size": "images",
    "rotation": "degrees",
    "cpus": "CPUs",
    "gpus": "GPUs",
}
"""units of numbers by the setting's name"""
PAPERS_VALUE = re.compile(r"[(;] ?the paper(?:'s| for)?(?P<where>[^:();]*): (?P<value>[^;()]+)")
"""`(the paper for CIFAR-10: 2.5e-5)` in a docstring"""


@dataclass(frozen=True)
class SettingEntry:
    """One setting of a configuration class.

    Attributes:
        name: within its section.
        type: in words, such as `integer` or `constant|cosine`.
        limits: allowed range, such as `>= 1`; empty: any value of the type.
        unit: such as `s`; empty: none.
        default: as in YAML.
        meaning: its docstring, in one line.
        paper: the value in Yin et al., CVPR 2020; empty where the docstring names none.
    """

    name: str
    type: str
    limits: str
    unit: str
    default: str
    meaning: str
    paper: str


def sections_of(kind: type) -> dict[str, type]:
    """Return the configuration classes of a class's sections, by name."""
    return {each.name: each.type for each in fields(kind) if is_section(each.type)}  # type: ignore[misc]


def entries_of(kind: type, defaults: Mapping[str, Any]) -> list[SettingEntry]:
    """Return the settings of a class in their order, without those of its sections.

    Args:
        defaults: default values by name.
    """
    meanings, found = _meanings(kind), []
    for each in fields(kind):
        if is_section(each.type):
            continue
        text, limits = _described(each.type)
        meaning = " ".join(meanings.get(each.name, "").split())
        unit, default, paper = _unit(each.name), shown(defaults[each.name]), _papers_value(meaning)
        found.append(SettingEntry(each.name, text, limits, unit, default, meaning, paper))
    return found


def first_line(kind: type) -> str:
    """Return the first line of a class's docstring."""
    return inspect.cleandoc(kind.__doc__ or "").splitlines()[0]


def is_section(of: Any) -> bool:
    """Return whether a field's type is a configuration class."""
    return isinstance(of, type) and is_dataclass(of)


def shown(default: Any) -> str:
    """Return a value as it is written in YAML, in one line."""
    if isinstance(default, str):
        return default or '""'
    return json.dumps(default).replace('"', "")


def _unit(name: str) -> str:
    return UNITS.get(name) or next((unit for end, unit in SUFFIXES.items() if name.endswith(end)), "")


def _papers_value(meaning: str) -> str:
    if not (found := PAPERS_VALUE.search(meaning)):
        return ""
    where = found["where"].strip()
    return f"{found['value'].strip()} ({where})" if where else found["value"].strip()


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
    if is_section(of):
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
