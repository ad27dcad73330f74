"""Settings as a tree: nested mappings whose leaves have dotted names."""

from collections.abc import Collection, Mapping
from typing import Any


def leaves(
    settings: Mapping[str, Any], whole: Collection[str] = (), prefix: str = "", empty: bool = False
) -> dict[str, Any]:
    """Return nested settings as one level, by dotted name in their order.

    Args:
        whole: names of settings whose value is one leaf even if it is a mapping, such as a network's arguments.
        prefix: prefix of all names.
        empty: whether an empty mapping is a leaf; else it has none.
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and name not in whole and not (empty and not value)
        found |= leaves(value, whole, f"{prefix}{name}.", empty) if nested else {f"{prefix}{name}": value}
    return found
