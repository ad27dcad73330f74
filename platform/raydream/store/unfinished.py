"""Checkpoints of batches in progress, beside the shards: what a generator that dies leaves for the next one."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydream.errors import DocumentError, ShardError, first_line
from raydream.store.documents import parse_json
from raydream.store.folders import Folder
from raydream.store.records import BatchId
from raydream.store.safetensors_file import packed, unpacked

START, ENDING = "_unfinished-", ".safetensors"
"""prefix of the files' names; readers of data sets skip names that begin with an underscore"""


@dataclass(frozen=True)
class Unfinished:
    """The content of a checkpoint.

    Attributes:
        arrays: by name.
        facts: values that JSON can hold, by name.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


class UnfinishedBatches:
    """The checkpoints of a run's batches in progress, at most one for each.

    A checkpoint is a convenience: where it is missing or damaged, its batch is made from its first update.

    Args:
        folder: of the run's shards.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def read(self, batch: BatchId) -> Unfinished | None:
        """Return a batch's checkpoint; None if there is none.

        Nothing in the file is executed, and what does not fit into free memory is not read.

        Raises:
            ShardError: it is damaged, or storage keeps failing.
        """
        try:
            arrays, texts = unpacked(self._folder.read(_name(batch)))
            facts = parse_json(texts.get("facts", ""), "its description")
            if not isinstance(facts, dict):
                raise ValueError("it describes no batch")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, DocumentError) as error:
            raise ShardError(f"the checkpoint of batch {batch} cannot be read ({first_line(error)})") from error
        return Unfinished(arrays, facts)

    def write(self, batch: BatchId, content: Unfinished) -> None:
        """Write a batch's checkpoint in place of the one before it; raises OSError, and DiskFullError."""
        self._folder.write(_name(batch), packed(content.arrays, {"facts": json.dumps(content.facts)}))

    def delete(self, batch: BatchId) -> None:
        """Delete a batch's checkpoint if there is one; raises OSError."""
        self._folder.delete(_name(batch))

    def delete_leftovers(self, committed: Iterable[BatchId]) -> None:
        """Delete the checkpoints of committed batches, which killed generators and late ones leave; raises OSError."""
        for name in {*self._folder.names()} & {*map(_name, committed)}:
            self._folder.delete(name)


def _name(batch: BatchId) -> str:
    return f"{START}{batch}{ENDING}"
