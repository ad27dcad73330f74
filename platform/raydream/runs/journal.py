"""The journal: what went wrong in a run and was mended, and whose images it took; a line each, kept in its folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raydream.store.documents import is_moment
from raydream.store.json_lines import append_line, read_lines


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
        append_line(self._path, {"moment": time.time(), "text": text})


def read_journal(path: Path) -> list[Entry]:
    """All entries in order; see `read_lines`."""
    entries = (Entry(**line) for line in read_lines(path) if set(line) == {"moment", "text"})
    return [entry for entry in entries if is_moment(entry.moment) and isinstance(entry.text, str)]
