"""Checks memory for the stated content of a file before it is unpacked, as a small file can state anything."""

import os
from pathlib import Path

MEMINFO, CONTROL_GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def check_fits(size: int) -> None:
    """Raise ValueError if this number of bytes does not fit into free memory."""
    if size > (free := free_memory()):
        raise ValueError(f"it takes {in_words(size)} of memory, of which {in_words(free)} are free")


def free_memory() -> int:
    """Return the bytes that this process can still take: those of the machine, or of its control group if fewer.

    If the system reports no more, this is all of the machine's memory.
    """
    try:
        told = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="utf-8").splitlines())
        free = int(told["MemAvailable"].split()[0]) * 1024
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
