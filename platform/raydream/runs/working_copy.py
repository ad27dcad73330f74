"""The working copy of a run folder that is in a store: the driver's files on this machine, saved as the run goes on."""

import tempfile
from pathlib import Path

from raydream.store.folders import Folder


class WorkingCopy:
    """Files below a folder of this machine that lives as long as this process.

    The store has the truth: a copy is fetched from it once, and what was not saved when the process dies is lost (a
    round of curves at most, as in any run folder).

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
        """Copy all files that lie in the folder itself; raises OSError."""
        for name in self._place.names():
            if not name.startswith((".", "_")):
                (self.path / name).write_bytes(self._place.read(name))
                self._saved[self.path / name] = _state(self.path / name)

    def save(self) -> None:
        """Write what has changed to the store, in the order in which it was written here; raises OSError."""
        files = {path: _state(path) for path in self.path.rglob("*") if path.is_file() and path.name[0] != "."}
        changed = {path: state for path, state in files.items() if self._saved.get(path) != state}
        for path, state in sorted(changed.items(), key=lambda each: each[1]):
            folder = self._place
            for part in path.relative_to(self.path).parts[:-1]:
                folder = folder / part
            folder.write(path.name, path.read_bytes())
            self._saved[path] = state


def _state(path: Path) -> tuple[int, int]:
    """When a file was written, in nanoseconds, and its bytes."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size
