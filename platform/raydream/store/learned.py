"""The states that synthesizers learn from batch to batch, kept beside their batches."""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raydream.errors import ShardError
from raydream.store.folders import Folder
from raydream.store.records import BatchId
from raydream.store.safetensors_file import packed, unpacked

log = logging.getLogger(__name__)

START, ENDING = "_learned-", ".safetensors"
"""prefix of the files' names; readers of data sets skip names that begin with an underscore"""

State = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LearnedState:
    """The learned state that a batch starts from.

    Attributes:
        state: what has been learned; empty: nothing yet.
        after: the batch that it was learned with.
        note: a sentence about a missing or damaged state; else empty.
    """

    state: State
    after: BatchId | None = None
    note: str = ""


class LearnedStates:
    """The learned states of a run, one per batch, committed before the batch's shard: a committed batch has one.

    Args:
        folder: of the run's shards; None: they are kept in memory, for a process that makes all batches itself.
        keep: number of the newest states to keep; None: all. `of` derives the number that a run needs.
    """

    def __init__(self, folder: Folder | None, keep: int | None) -> None:
        self._folder, self._keep = folder, keep
        self._memory: dict[BatchId, State] = {}

    @classmethod
    def of(cls, folder: Folder | None, chains: int, *, all_kept: bool = False) -> "LearnedStates":
        """Open the states of a run, of which the newest two of each chain are kept.

        That is enough to resume after the death of any process, as batches are begun in order.

        Args:
            folder: see `LearnedStates`.
            chains: number of generator networks that learn side by side, see `predecessor`.
            all_kept: whether to keep all, so that any batch can be made again to the bit (lockstep).
        """
        return cls(folder, None if all_kept else 2 * chains)

    def before(self, after: BatchId | None) -> LearnedState:
        """Return the state that a batch starts from, which is learned with its predecessor.

        If that state is missing or damaged, it is the newest readable one, which the note reports: such a batch can be
        made, but not to the bit.
        """
        if after is None:
            return LearnedState({})
        try:
            return LearnedState(self._read(after), after)
        except ShardError as error:
            damage = str(error)
        for batch in reversed(self.batches()):
            with contextlib.suppress(ShardError):
                return LearnedState(self._read(batch), batch, f"{damage}; using that of batch {batch}")
        return LearnedState({}, None, f"{damage}; starting from scratch")

    def commit(self, batch: BatchId, state: State) -> None:
        """Commit the state learned with a batch, unless one exists; raises OSError, and DiskFullError."""
        if self._folder is None:
            self._memory[batch] = state
        else:
            self._folder.write_first(_name(batch), packed(state))
        for old in self.batches()[: -self._keep] if self._keep else []:
            self._memory.pop(old, None)
            if self._folder is not None:
                self._folder.delete(_name(old))

    def batches(self) -> list[BatchId]:
        """Return the batches whose states are kept, in order."""
        if self._folder is None:
            return sorted(self._memory)
        found = []
        for name in self._folder.names():
            if name.startswith(START) and name.endswith(ENDING):
                with contextlib.suppress(ValueError):
                    found.append(BatchId.parse(name.removeprefix(START).removesuffix(ENDING)))
        return sorted(found)

    def _read(self, batch: BatchId) -> State:
        """Read a state; raises ShardError if it is missing or damaged."""
        if self._folder is None:
            if batch not in self._memory:
                raise ShardError(f"what was learned with batch {batch} is missing")
            return self._memory[batch]
        try:
            return unpacked(self._folder.read(_name(batch)))[0]
        except (FileNotFoundError, ValueError) as error:
            raise ShardError(f"what was learned with batch {batch} cannot be read ({error})") from error


def _name(batch: BatchId) -> str:
    return f"{START}{batch}{ENDING}"
