"""Findings: what a diagnosis says, one sentence each, and how sure it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["fault", "suspected", "note"]

RANKS: dict[str, int] = {"fault": 0, "suspected": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that a diagnosis found.

    Attributes:
        about: what it is about: statistics, normalization, channels, size, structure or probe.
        severity: fault, where images or statistics show it; suspected, where they hint at it; note, where nothing is
            wrong, or where something could not be determined.
        text: what was found, in one sentence or two.
        remedy: what to do; empty for a note that asks for nothing.
    """

    about: str
    severity: Severity
    text: str
    remedy: str = ""


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with faults first and notes last, else in their order."""
    return sorted(findings, key=lambda each: RANKS[each.severity])
