"""Default settings of a table at a scale, which a user's settings override."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from raydream.search.space import merged

SCALES = ("digits", "cifar", "paper")


def settings_of(table: int, scale: str) -> dict[str, Any]:
    """Return the settings of one table at one scale, nested as `ReproduceConfig` is.

    Args:
        table: 1 to 7.
        scale: one of `SCALES`.
    """
    text = (files("raydream.reproduction") / "scales" / f"{scale}.yaml").read_text(encoding="utf-8")
    described = yaml.safe_load(text)
    return merged(described["all"], described[f"table_{table}"])


def defaults_for(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the table and scale in a user's nested settings; none for an unknown table.

    The configuration reports errors in either.
    """
    table, scale = said.get("table"), said.get("scale", SCALES[0])
    if not isinstance(table, int) or table not in range(1, 8) or scale not in SCALES:
        return {}
    return settings_of(table, scale)
