"""Memory: how much is free, whether something fits, and whether an error means that it ran out."""

import os
from pathlib import Path

MEMINFO, CONTROL_GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
LIBRARIES = ("cublas_status_", "cudnn_status_")
SAID_BY_LIBRARIES = ("alloc_failed", "not_initialized", "allocation_failed")
"""errors of cuBLAS and cuDNN that find no memory, for a workspace or for themselves"""


def check_fits(size: int) -> None:
    """Raise ValueError if this number of bytes does not fit into free memory.

    To be called before a file is unpacked, as a small file can state any size.
    """
    if size > (free := free_memory()):
        raise ValueError(f"it takes {in_words(size)} of memory, of which {in_words(free)} are free")


def free_memory() -> int:
    """Return the bytes that this process can still take: those of the machine, or of its control group if fewer.

    If the system reports no more, this is all of the machine's memory.
    """
    try:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="utf-8").splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit, used = (
            int((CONTROL_GROUP / f"memory.{name}").read_text(encoding="utf-8")) for name in ("max", "current")
        )
        kept = dict(line.split() for line in (CONTROL_GROUP / "memory.stat").read_text(encoding="utf-8").splitlines())
        return max(0, min(free, limit - used + int(kept["file"])))  # the kernel frees its copies of files
    except (OSError, KeyError, ValueError):  # there is no such group, or its limit is "max"
        return free


def in_words(size: int) -> str:
    """Format a number of bytes with 3 significant digits and a unit: 1.5 GiB."""
    amount, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1000 and len(units) > 1:
        amount, _ = amount / 1024, units.pop(0)
    return f"{amount:.3g} {units[0]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; each device and library words it differently."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    library = any(name in text for name in LIBRARIES) and any(end in text for end in SAID_BY_LIBRARIES)
    return isinstance(error, RuntimeError) and (
        library or "out of memory" in text or "can't allocate memory" in text or "unable to find an engine" in text
    )
