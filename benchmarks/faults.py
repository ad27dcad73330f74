"""Faults of a machine that processes meet without being touched: storage that is slow or fails, a clock that is off."""

import os
import shutil
import struct
import subprocess
from pathlib import Path


class Faults:
    """Switches faults of the processes that are started in `environment`; see faults.c, which is compiled here.

    Args:
        work: folder for the library and for what the processes read.
        folder: of the files whose writing is slow or fails.

    Raises:
        OSError: there is no C compiler.
        subprocess.CalledProcessError: it failed.
    """

    def __init__(self, work: Path, folder: Path) -> None:
        if shutil.which("gcc") is None:
            raise OSError("there is no gcc")
        library, self._control = work / "faults.so", work / "faults"
        source = Path(__file__).with_name("faults.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        self.set()
        faults = {"LD_PRELOAD": library, "FAULTS_CONTROL": self._control, "FAULTS_FOLDER": folder}
        self.environment = {**os.environ, **{name: str(value) for name, value in faults.items()}}

    def set(self, *, clock_s: int = 0, sync_ms: int = 0, failing: int = 0) -> None:
        """Replace the faults, from this moment on.

        Args:
            clock_s: seconds by which Python's wall clock is off.
            sync_ms: milliseconds that each fsync takes longer.
            failing: each n-th fsync fails; 0: none does.
        """
        with open(self._control, "r+b" if self._control.exists() else "wb") as file:  # noqa: PTH123
            file.write(struct.pack("=3q", clock_s, sync_ms, failing))
