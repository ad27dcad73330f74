"""The metrics of a run on disk: parts that a run in progress appends, and one file of them all at a session's end."""

import contextlib
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydream.errors import ShardError, first_line
from raydream.runs.working_copy import PARTS
from raydream.store.atomic import quarantine, retry_transient, write_atomically

COLUMNS = {
    "time_s": "float64",
    "duration_s": "float64",
    "source": "string",
    "name": "string",
    "round": "Int32",
    "step": "Int64",
    "batch": "string",
    "value": "float64",
}
"""columns of metrics.parquet, in long form: a row is a point (`value`) or a span (`duration_s`) of a named source, at
`time_s` seconds since the run began; a gap between two sessions of a resumed run does not count"""
ROWS_PER_PART = 10_000
"""number of rows from which on a part is full, and never written again; a flush writes the newest part whole"""
MERGED = b"raydream_parts"
"""in the metadata of metrics.parquet: number of the last part whose rows are in it; 0 where absent (version 0.1)"""
ATTEMPTS = 5
"""attempts at reading a table while its writer merges it"""

_SCHEMA = pa.Schema.from_pandas(pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS), preserve_index=False)


class MetricsTable:
    """The rows of a run, to which one process appends.

    `flush` writes the new rows to the newest part, `metrics/<number>.parquet`; `merge` writes metrics.parquet, which
    names the last part that it contains, and then deletes the parts. Readers skip parts that metrics.parquet
    contains, so that a process may be killed between any two steps: each flushed row counts exactly once.

    Args:
        path: of metrics.parquet; rows of earlier sessions are kept.

    Attributes:
        damage: a sentence about the files that could not be read and were quarantined; None if there are none.
        end_s: end of the last earlier row, in seconds since the run began; 0 if there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[tuple[Any, ...]] = []
        self._flushed = 0
        self.end_s = 0.0
        damages = []
        merged = 0
        if path.exists():
            try:
                table, merged = _read_merged(path)
                self._note_end(table)
            except ShardError as error:
                damages.append(_quarantined(path, error))
        parts = _parts(path)
        for number, part in parts.items():
            if number > merged:
                try:
                    self._note_end(_read_file(part))
                except ShardError as error:
                    damages.append(_quarantined(part, error))
        self._number = max(merged, *parts, 0) + 1
        self.damage = "; ".join(damages) or None

    def append(self, row: tuple[Any, ...]) -> None:
        """Add a row: a value for each of `COLUMNS`, None if missing. It is on the disk after the next flush."""
        self._rows.append(row)

    def frame(self) -> pd.DataFrame:
        """Return all rows in order, including those of earlier sessions and those not yet flushed; see `COLUMNS`.

        Raises:
            ShardError: a file has become unreadable since the table was opened.
        """
        stored = _read_stored(self._path)[0] if has_metrics(self._path) else _SCHEMA.empty_table()
        return _frame(pa.concat_tables([stored, _table(self._rows[self._flushed :])]))

    def flush(self) -> None:
        """Write the new rows to the disk; raises OSError, after which a later flush writes them."""
        if self._flushed == len(self._rows):
            return
        part, table = _part(self._path, self._number), _table(self._rows)
        part.parent.mkdir(exist_ok=True)
        _write(part, table)
        self._flushed = len(self._rows)
        if self._flushed >= ROWS_PER_PART:
            self._begin_part()

    def merge(self) -> None:
        """Flush, and merge metrics.parquet and all parts, which are deleted, into one metrics.parquet.

        Raises:
            ShardError: a file has become unreadable since the table was opened; nothing is lost.
            OSError: nothing is lost.
        """
        self.flush()
        parts = _parts(self._path)
        if parts or not self._path.exists():
            stored, last = _read_stored(self._path) if has_metrics(self._path) else (_SCHEMA.empty_table(), 0)
            _write(self._path, stored.replace_schema_metadata({**_SCHEMA.metadata, MERGED: str(last)}))
            self._begin_part()
        for part in parts.values():
            part.unlink()
        with contextlib.suppress(OSError):  # a damaged part is kept in there
            _folder(self._path).rmdir()

    def _begin_part(self) -> None:
        self._rows, self._flushed, self._number = [], 0, self._number + 1

    def _note_end(self, table: pa.Table) -> None:
        if len(table):
            ends = pc.add(table["time_s"], pc.fill_null(table["duration_s"], 0.0))
            self.end_s = max(self.end_s, pc.max(ends).as_py())


def read_metrics(path: Path) -> pd.DataFrame:
    """Read the rows of a run, in progress or done, in their order; see `COLUMNS`.

    Args:
        path: of metrics.parquet; parts beside it are read, too.

    Raises:
        ShardError: there are no metrics, or a file is damaged or not a metrics file.
    """
    return _frame(_read_stored(path)[0])


def has_metrics(path: Path) -> bool:
    """Return whether a run has metrics: a metrics.parquet at this path, or parts beside it."""
    return path.exists() or bool(_parts(path))


def _read_stored(path: Path) -> tuple[pa.Table, int]:
    """Read all rows on the disk, and the number of the last part that they contain; raises ShardError."""
    # Parts are listed before metrics.parquet is read: a part deleted in between is contained in that file, or is
    # found missing, and the next attempt finds the file that contains it.
    for _ in range(ATTEMPTS):
        parts = _parts(path)
        table, merged = _read_merged(path) if path.exists() or not parts else (_SCHEMA.empty_table(), 0)
        with contextlib.suppress(FileNotFoundError):
            later = [_read_file(part) for number, part in parts.items() if number > merged]
            return pa.concat_tables([table, *later]).replace_schema_metadata(_SCHEMA.metadata), max(merged, *parts, 0)
    raise ShardError(f"the metrics in {_folder(path)} cannot be read: parts disappear from it")


def _read_merged(path: Path) -> tuple[pa.Table, int]:
    """Read the rows of metrics.parquet, and the number of the last part that it contains; raises ShardError."""
    try:
        table = _read_file(path)
    except FileNotFoundError as error:
        raise _unreadable(path, error) from error
    number = (table.schema.metadata or {}).get(MERGED, b"0")
    if not number.isdigit():
        raise _unreadable(path, ValueError(f"{MERGED.decode()} is {number!r}, not a number"))
    return table, int(number)


def _read_file(path: Path) -> pa.Table:
    """Read the rows of one file and its metadata; raises FileNotFoundError, or ShardError if it is damaged."""
    try:
        table = retry_transient(lambda: pq.read_table(path, page_checksum_verification=True))
        return table.select(list(COLUMNS)).cast(_SCHEMA.with_metadata(table.schema.metadata))
    except FileNotFoundError:
        raise
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ShardError:
    return ShardError(f"the metrics in {path} cannot be read: {first_line(error)}")


def _quarantined(path: Path, error: ShardError) -> str:
    return f"{error}; the file is kept as {quarantine(path).name}, and its curves are missing"


def _folder(path: Path) -> Path:
    return path.parent / PARTS


def _part(path: Path, number: int) -> Path:
    return _folder(path) / f"{number:06d}.parquet"


def _parts(path: Path) -> dict[int, Path]:
    """Return the parts beside a metrics.parquet by number, in order."""
    folder = _folder(path)
    names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    numbers = sorted(int(name.partition(".")[0]) for name in names if re.fullmatch(r"[0-9]{6,}\.parquet", name))
    return {number: _part(path, number) for number in numbers}


def _table(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    return pa.Table.from_arrays(
        [pa.array(column, kind) for column, kind in zip(columns, _SCHEMA.types, strict=True)], schema=_SCHEMA
    )


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas().astype(COLUMNS)
    return frame


def _write(path: Path, table: pa.Table) -> None:
    write_atomically(path, lambda temporary: pq.write_table(table, temporary, write_page_checksum=True))
