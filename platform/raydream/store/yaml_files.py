"""YAML as raydream writes it; apart from `store/atomic.py`, so that a process without YAML needs no package for it."""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from raydream.store.atomic import write_atomically


def yaml_text(value: Any, flow: bool = False) -> str:
    """Return YAML of plain values, keys in their given order.

    Args:
        flow: whether to write in brackets, as on a command line.
    """
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=flow)
    return text


class SettingsLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML that a user has written: 1e-3 is a number, as in YAML 1.2, and 2020-01-01 is text."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {
        first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Puts text such as 1e3 in quotes, which `SettingsLoader` and YAML 1.2 read as a number and PyYAML does not."""


for _each in (SettingsLoader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML through a temporary file, keys in their given order; raises OSError."""
    text = yaml_text(value)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
