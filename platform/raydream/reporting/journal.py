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
        entry = json.dumps({"moment": time.time(), "text": text}).encode() + b"\n"
        with self._path.open("a+b") as file:
            if file.tell() and (file.seek(-1, 2), file.read())[1] != b"\n":
                entry = b"\n" + entry  # after a line that a killed process left half-written
            file.write(entry)


def read_journal(path: Path) -> list[Entry]:
    """All entries in order; a line that a killed process left half-written is passed over."""
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return entries
