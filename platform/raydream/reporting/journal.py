"""The journal: what went wrong in a run and was mended, a line each, kept in its folder."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One thing that happened.

    Attributes:
        moment: seconds since the epoch.
        text: what, in a sentence.
    """

    moment: float
    text: str


class Journal:
    """Writes entries down as they come, and shows them.

    Args:
        path: of the file, JSON lines; entries of earlier sessions are kept.
        say: where to show an entry as well.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say

    def note(self, text: str) -> None:
        """Show something, and write it down; raises OSError."""
        self._say(text)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"moment": time.time(), "text": text}) + "\n")


def read_journal(path: Path) -> list[Entry]:
    """All entries in order; a line that a killed process left half-written is passed over."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return entries
