"""Is there memory for what a file says it holds? Asked before it is unpacked, as a small file can say anything."""

import os
from collections.abc import Collection
from pathlib import Path

import pyarrow.parquet as pq

MEMINFO, CONTROL_GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
WIDTHS = {"INT64": 8, "DOUBLE": 8, "INT96": 12}
"""bytes of a number of Parquet's types, where it is not 4; of text and bytes, the index of one in a dictionary has 4"""


def check_fits(size: int) -> None:
    """Raise ValueError where so many bytes do not fit into the memory that is free."""
    if size > (free := free_memory()):
        raise ValueError(f"it takes {in_words(size)} of memory, of which {in_words(free)} are free")


def check_parquet_fits(metadata: pq.FileMetaData, columns: Collection[str] | None = None) -> None:
    """Raise ValueError where a row group of a Parquet file does not fit into the memory that is free.

    A row group is as large as its pages say, or as its values, each as wide as its type: a page holds many equal
    numbers as one. Text and bytes that rows share are as large as they like: read them as a dictionary.

    Args:
        columns: by their paths in the file, with all that lies in them; None: all.
    """
    for group in range(metadata.num_row_groups):
        size, row_group = 0, metadata.row_group(group)
        for index in range(metadata.num_columns):
            column = row_group.column(index)
            path = column.path_in_schema
            if columns is None or any(path == each or path.startswith(f"{each}.") for each in columns):
                fixed = column.physical_type == "FIXED_LEN_BYTE_ARRAY"
                width = metadata.schema.column(index).length if fixed else WIDTHS.get(column.physical_type, 4)
                size += max(column.total_uncompressed_size, column.num_values * width)
        check_fits(size)


def free_memory() -> int:
    """Bytes that this process can still take: those of the machine, or of its control group if these are fewer.

    Where the system tells no more, all of the machine's memory.
    """
    try:
        told = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free = int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit, used = (int((CONTROL_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        kept = dict(line.split() for line in (CONTROL_GROUP / "memory.stat").read_text().splitlines())
        return max(0, min(free, limit - used + int(kept["file"])))  # the kernel gives up its copies of files
    except (OSError, KeyError, ValueError):  # there is no such group, or its limit is "max"
        return free


def in_words(size: int) -> str:
    """A number of bytes as 3 significant digits and a unit: 1.5 GiB."""
    amount, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1000 and len(units) > 1:
        amount, _ = amount / 1024, units.pop(0)
    return f"{amount:.3g} {units[0]}"
