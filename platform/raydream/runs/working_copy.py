"""The working copy of a run folder that is in a store: the driver's files on this machine, saved during the run."""

import contextlib
import tempfile
from pathlib import Path

from raydream.store.folders import Folder

PARTS = "metrics"
"""name of the folder of the parts of a run's metrics; see `MetricsTable`, which takes long to import"""


class WorkingCopy:
    """Files below a temporary folder of this machine, deleted with this process.

    The store is authoritative: changes not saved when the process dies are lost (a round of curves at most, as in any
    run folder), and fetching replaces all files here.

    Args:
        place: the folder in the store. Folders in it that many processes write to are not copied.

    Attributes:
        path: of the copy.
    """

    def __init__(self, place: Folder) -> None:
        self._place = place
        self._here = tempfile.TemporaryDirectory(prefix="raydream-")
        self.path = Path(self._here.name)
        self._saved: dict[Path, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Copy all files of the folder itself, and the parts of its metrics, in place of those here; raises OSError."""
        for path in self._files():
            path.unlink()
        self._saved.clear()
        (self.path / PARTS).mkdir(exist_ok=True)
        # Parts first: one that disappears meanwhile is contained in metrics.parquet, which is copied after it.
        for name in (self._place / PARTS).names():
            with contextlib.suppress(FileNotFoundError):
                self._fetch(self._place / PARTS, self.path / PARTS, name)
        for name in self._place.names():
            self._fetch(self._place, self.path, name)

    def save(self) -> None:
        """Update the store from the files here, in the order in which these were written; raises OSError.

        Deletions come last, so that a process that is killed meanwhile leaves too much, not too little.
        """
        files = {path: _state(path) for path in self._files()}
        changed = {path: state for path, state in files.items() if self._saved.get(path) != state}
        for path, state in sorted(changed.items(), key=lambda each: each[1]):
            self._folder_of(path).write(path.name, path.read_bytes())
            self._saved[path] = state
        for path in sorted(self._saved.keys() - files.keys()):
            self._folder_of(path).delete(path.name)
            del self._saved[path]

    def _files(self) -> list[Path]:
        return [path for path in self.path.rglob("*") if path.is_file() and path.name[0] != "."]

    def _fetch(self, place: Folder, to: Path, name: str) -> None:
        if not name.startswith((".", "_")):
            (to / name).write_bytes(place.read(name))
            self._saved[to / name] = _state(to / name)

    def _folder_of(self, path: Path) -> Folder:
        folder = self._place
        for part in path.relative_to(self.path).parts[:-1]:
            folder = folder / part
        return folder


def _state(path: Path) -> tuple[int, int]:
    """Return when a file was written, in nanoseconds, and its size in bytes."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size
