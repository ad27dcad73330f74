"""Shards: the durable copy of the image batches, one Parquet file each. They are the truth; all else is a cache."""

import contextlib
import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raydream.errors import ShardError
from raydream.records import BatchId, ImageBatch
from raydream.storage import patiently, set_aside, write_aside


class ShardStore:
    """The folder of a run's shards.

    Attributes:
        folder: is made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def path(self, batch: BatchId) -> Path:
        """Where a batch's shard lies, or would lie."""
        return self.folder / f"{batch}.parquet"

    def has(self, batch: BatchId) -> bool:
        """Whether a batch is committed."""
        return self.path(batch).exists()

    def write(self, batch: ImageBatch) -> None:
        """Commit a batch: once this returns, it outlives any process. A shard of that id is replaced.

        Raises:
            DiskFullError, OSError: see `write_aside`; nothing is left behind.
        """
        table = batch.to_table()
        write_aside(
            self.path(batch.id),
            lambda aside: pq.write_table(table, aside, compression="zstd", write_page_checksum=True),
        )

    def read(self, batch: BatchId) -> ImageBatch:
        """Read a committed batch.

        Raises:
            ShardError: it is not there, is damaged, or is another batch's.
            OSError: storage keeps failing, which says nothing of the shard.
        """
        path = self.path(batch)
        try:
            table = patiently(lambda: pq.read_table(path, page_checksum_verification=True))
            found = ImageBatch.from_table(table)
        except (OSError, pa.ArrowException, ShardError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
                raise
            raise ShardError(f"the shard {path} cannot be read: {error}") from error
        if found.id != batch:
            raise ShardError(f"the shard {path} holds batch {found.id}: somebody renamed it")
        return found

    def rows(self, batch: BatchId) -> int:
        """Images of a committed batch, without reading them; raises ShardError as `read` does."""
        try:
            return int(pq.read_metadata(self.path(batch)).num_rows)
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"the shard {self.path(batch)} cannot be read: {error}") from error

    def set_aside_damaged(self) -> list[ShardError]:
        """Read every shard, and move those that cannot be read out of the way, so that they can be made again.

        A damaged shard stays in the folder under a name that no reader of data sets looks at.

        Returns:
            what was wrong with each.
        """
        damaged = []
        for batch in self.committed():
            try:
                self.read(batch)
            except ShardError as error:
                damaged.append(error)
                set_aside(self.path(batch))
        return damaged

    def committed(self) -> list[BatchId]:
        """The ids of all shards in order; a file that is no shard of ours is passed over."""
        found = []
        for path in self.folder.glob("r*-b*.parquet"):
            with contextlib.suppress(ValueError):
                found.append(BatchId.parse(path.stem))
        return sorted(found)
