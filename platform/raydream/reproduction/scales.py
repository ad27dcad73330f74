"""What a table needs at a scale: settings for the configuration, beneath what a user says."""

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from raydream.errors import DocumentError
from raydream.search.space import merged
from raydream.store.documents import parse_yaml

SCALES = ("digits", "cifar", "paper")


def settings_of(table: int, scale: str) -> dict[str, Any]:
    """Settings of one table at one scale, nested as `ReproduceConfig` is.

    Args:
        table: 1 to 7.
        scale: one of `SCALES`.
    """
    text = (files("raydream.reproduction") / "scales" / f"{scale}.yaml").read_text(encoding="utf-8")
    described = yaml.safe_load(text)
    return merged(described["all"], described[f"table_{table}"])


def defaults_for(given: Sequence[str]) -> dict[str, Any]:
    """Settings of the table and the scale that a command line asks for, or a file that it names; none without.

    What is wrong with either is left to the configuration to say.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--table", "--scale"):
        parser.add_argument(name)
    parser.add_argument("--config", action="append", default=[])
    try:
        asked = vars(parser.parse_known_args(list(given))[0])
    except argparse.ArgumentError:
        return {}
    chosen: dict[str, Any] = {"scale": SCALES[0]}
    for path in asked.pop("config"):
        chosen |= {name: value for name, value in _read(path).items() if name in asked}
    chosen |= {name: value for name, value in asked.items() if value is not None}
    table = str(chosen.get("table"))
    known = chosen["scale"] in SCALES and table in map(str, range(1, 8))
    return settings_of(int(table), chosen["scale"]) if known else {}


def _read(path: str) -> dict[str, Any]:
    try:
        content = parse_yaml(Path(path).read_bytes(), path)
    except (OSError, DocumentError):
        return {}
    return content if isinstance(content, dict) else {}
