"""What a table needs at a scale: settings for the configuration, beneath what a user says."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from raydream.search.space import merged

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


def defaults_for(said: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the table and the scale that a user asks for, by nested settings; none where there is no such table.

    What is wrong with either is left to the configuration to say.
    """
    table, scale = said.get("table"), said.get("scale", SCALES[0])
    if not isinstance(table, int) or table not in range(1, 8) or scale not in SCALES:
        return {}
    return settings_of(table, scale)
