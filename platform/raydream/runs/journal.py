"""The journal: failures and repairs of a run, and the runs whose images it reused; one line each, in its folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raydream.store.documents import is_moment
from raydream.store.json_lines import append_line, read_lines


@dataclass(frozen=True)
class Entry:
    """An entry of the journal.

    Attributes:
        moment: seconds since the epoch.
        text: what happened, in a sentence.
    """

    moment: float
    text: str


class Journal:
    """Writes and shows entries as they come.

    Args:
        path: of the file, JSON lines; entries of earlier sessions are kept.
        say: called with each entry, to show it.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say

    def note(self, text: str) -> None:
        """Show and write an entry; raises OSError."""
        self._say(text)
        append_line(self._path, {"moment": time.time(), "text": text})


def read_journal(path: Path) -> list[Entry]:
    """Read all entries in order; see `read_lines`."""
    entries = (Entry(**line) for line in read_lines(path) if set(line) == {"moment", "text"})
    return [entry for entry in entries if is_moment(entry.moment) and isinstance(entry.text, str)]
