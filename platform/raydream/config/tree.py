"""Settings as a tree: nested mappings whose leaves have dotted names."""

from collections.abc import Collection, Mapping
from typing import Any


def leaves(settings: Mapping[str, Any], whole: Collection[str] = (), prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level, by dotted name in their order; empty mappings have no leaf.

    Args:
        whole: names of settings whose value is one leaf even if it is a mapping, such as a network's arguments.
        prefix: prefix of all names.
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and name not in whole
        found |= leaves(value, whole, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found
