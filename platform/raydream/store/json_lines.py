"""Files of JSON lines that are only appended to, so that a kill costs at most the line in progress."""

import json
from pathlib import Path
from typing import Any

from raydream.errors import DocumentError
from raydream.store.documents import parse_json


def append_line(path: Path, entry: dict[str, Any]) -> None:
    """Append an entry; raises OSError."""
    line = json.dumps(entry).encode() + b"\n"
    with path.open("a+b") as file:
        if file.tell() and (file.seek(-1, 2), file.read())[1] != b"\n":
            line = b"\n" + line  # after a line that a killed process left half-written
        file.write(line)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return all entries in order, but for a line that a killed process left half-written; none if there is no file."""
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            entry = parse_json(line, path.name)
        except DocumentError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
