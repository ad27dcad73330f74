"""Shards: the durable, authoritative copy of the image batches, one Parquet file each; all else is a cache."""

import contextlib
import io
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydream.errors import ShardError
from raydream.memory import check_fits
from raydream.store.atomic import damaged_name, link_or_copy
from raydream.store.exclusive import write_first
from raydream.store.folders import Folder, folder_at
from raydream.store.records import BatchId, ImageBatch, Provenance, check_types, parse_description
from raydream.store.verified import read_verified, write_verified

ENDING = ".parquet"
ROWS_TOGETHER = 256
"""number of rows that are unpacked together"""


class ShardStore:
    """The folder of a run's shards.

    Args:
        folder: the folder, its path or its URL; need not exist.

    Attributes:
        folder: of the shards.
    """

    def __init__(self, folder: Folder | Path | str) -> None:
        self.folder = folder_at(folder)

    def has(self, batch: BatchId) -> bool:
        """Return whether a batch is committed."""
        return self.folder.has(file_name(batch))

    def write(self, batch: ImageBatch) -> bool:
        """Commit a batch, unless one of its id is committed; after this call, the committed one outlives any process.

        A committed batch never changes, as it may be in use: a generator that was cut off from the network, and whose
        batch was made elsewhere meanwhile, delivers other images late.

        Returns:
            False if another one is committed, to be read instead; see `Folder.write_first`.

        Raises:
            DiskFullError, OSError: see `Folder.write_first`; nothing is left behind.
        """
        content = io.BytesIO()
        pq.write_table(batch.to_table(), content, compression="zstd", write_page_checksum=True)
        return self.folder.write_first(file_name(batch.id), content.getvalue())

    def read(self, batch: BatchId) -> ImageBatch:
        """Read a committed batch.

        Raises:
            ShardError: it is missing, damaged, or another batch's.
            OSError: storage keeps failing; the shard may be intact.
        """
        try:
            content = self.folder.read(file_name(batch))
        except FileNotFoundError as error:
            raise self._unreadable(batch, error) from error
        try:
            rows, *_ = _extent(pq.read_metadata(io.BytesIO(content)))
            # Some rows at a time, with shared text once, so that no more is unpacked than a batch has.
            file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True, read_dictionary=["batch"])
            table = pa.Table.from_batches(file.iter_batches(ROWS_TOGETHER), file.schema_arrow)
            if len(table) != rows:
                raise ValueError(f"{len(table)} of {rows} rows are there")
            found = ImageBatch.from_table(table)
        except (OSError, ValueError, pa.ArrowException, ShardError) as error:
            raise self._unreadable(batch, error) from error
        if found.id != batch:
            raise ShardError(f"the shard {self._shown(batch)} holds batch {found.id}: it was renamed")
        return found

    def share(self, other: "ShardStore", batch: BatchId) -> bool:
        """Commit a batch of another store, as a hard link if storage has them.

        Args:
            other: like this one in a folder of this machine.

        Returns:
            False if a batch of that id is committed already, which stays unchanged.

        Raises:
            DiskFullError, OSError: see `exclusive.write_first`; nothing is left behind.
        """
        own, theirs = Path(str(self.folder)), Path(str(other.folder))
        own.mkdir(exist_ok=True)
        return write_first(own / file_name(batch), lambda temporary: link_or_copy(theirs / file_name(batch), temporary))

    def provenance(self, batch: BatchId) -> Provenance:
        """Return a committed batch's provenance, without reading its images; raises ShardError as `read` does."""
        try:
            with self.folder.open(file_name(batch)) as file:
                return parse_description(pq.read_metadata(file).metadata)[1]
        except (OSError, ValueError, pa.ArrowException, ShardError) as error:
            raise self._unreadable(batch, error) from error

    def rows(self, batch: BatchId) -> int:
        """Return the number of images of a committed batch, without reading them; raises ShardError as `read` does."""
        return self.extent(batch)[0]

    def targets(self, batch: BatchId) -> np.ndarray:
        """Return the targets of a committed batch, int64 [N], each in [0, K).

        Its images are not read. Raises ShardError and OSError as `read` does.
        """
        try:
            with self.folder.open(file_name(batch)) as file:
                shard = pq.ParquetFile(file, page_checksum_verification=True)
                rows, *_ = _extent(shard.metadata)
                targets: np.ndarray = shard.read(columns=["target"]).column("target").to_numpy()
            if len(targets) != rows or (targets < 0).any():
                raise ValueError("its targets are not a class for each image")
        except (OSError, ValueError, pa.ArrowException, ShardError) as error:
            raise self._unreadable(batch, error) from error
        return targets

    def extent(self, batch: BatchId) -> tuple[int, int, int, int]:
        """Return [N,C,H,W] of a committed batch, without reading its images; raises ShardError as `read` does.

        Checks that its columns have the right types, and that their stated content fits into memory.
        """
        try:
            with self.folder.open(file_name(batch)) as file:
                return _extent(pq.read_metadata(file))
        except (OSError, ValueError, pa.ArrowException, ShardError) as error:
            raise self._unreadable(batch, error) from error

    def quarantine_damaged(self) -> list[ShardError]:
        """Verify the shards that are new or changed, and quarantine damaged ones, so that they can be made again.

        A damaged shard stays in the folder under a name that readers of data sets skip.

        Returns:
            a sentence about each damage.
        """
        damaged = self.verify()
        for batch in damaged:
            self.folder.rename(file_name(batch), damaged_name(file_name(batch)))
        return [*damaged.values()]

    def verify(self, *, again: bool = False) -> dict[BatchId, ShardError]:
        """Read shards to their last byte, and record those that are whole; nothing else is changed.

        Args:
            again: whether to read those, too, that are recorded and have the size and the time of modification of then.

        Returns:
            what is damaged.

        Raises:
            OSError: storage keeps failing.
        """
        recorded, stamps, damaged = read_verified(self.folder), self.folder.stamps(), dict[BatchId, ShardError]()
        verified = {name: stamp for name, stamp in recorded.items() if stamps.get(name) == stamp}
        try:
            for batch in _batches_in(stamps):
                name = file_name(batch)
                if name in verified and not again:
                    continue
                try:
                    self.read(batch)
                    verified[name] = stamps[name]
                except ShardError as error:
                    damaged[batch] = error
                    verified.pop(name, None)
        finally:
            if verified != recorded:
                write_verified(self.folder, verified)
        return damaged

    def committed(self) -> list[BatchId]:
        """Return the ids of all shards in order; skips files that are not raydream's shards."""
        return _batches_in(self.folder.names())

    def _shown(self, batch: BatchId) -> str:
        return f"{self.folder}/{file_name(batch)}"

    def _unreadable(self, batch: BatchId, error: Exception) -> ShardError:
        return ShardError(f"the shard {self._shown(batch)} cannot be read: {error}")


def _batches_in(names: Iterable[str]) -> list[BatchId]:
    """Return the batches that files are named by, in order."""
    found = []
    for name in names:
        if name.endswith(ENDING):
            with contextlib.suppress(ValueError):
                found.append(BatchId.parse(name.removesuffix(ENDING)))
    return sorted(found)


def file_name(batch: BatchId) -> str:
    """Return the file name of a batch's shard."""
    return f"{batch}{ENDING}"


def _extent(metadata: pq.FileMetaData) -> tuple[int, int, int, int]:
    """Return [N,C,H,W] by a shard's description; raises ShardError, ValueError or ArrowException if it is not one."""
    shape, _ = parse_description(metadata.metadata)
    classes, rows = check_types(metadata.schema.to_arrow_schema(), shape), int(metadata.num_rows)
    check_fits(rows * (math.prod(shape) + classes * np.dtype(np.float32).itemsize + np.dtype(np.int64).itemsize))
    return rows, *shape
