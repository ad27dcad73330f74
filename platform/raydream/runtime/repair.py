"""Repair of a run: damaged shards are quarantined, and their batches made again."""

from collections.abc import Callable
from typing import TypeVar

from raydream.errors import ShardError
from raydream.store.shards import ShardStore
from raydream.store.unfinished import UnfinishedBatches

MAX_SESSIONS = 4
"""number of repairs per run; a disk that damages more shards is not worth writing to"""

Result = TypeVar("Result")


def with_whole_shards(store: ShardStore, session: Callable[[], Result], note: Callable[[str], None]) -> Result:
    """Run a session on readable shards; if one is damaged meanwhile, repair it and start the next session.

    The next session resumes the run: all of its state lies in the shards and the checkpoints. When a session
    ends, all shards are read once more: what it did not need to read may be damaged as well.

    Args:
        session: makes what is missing, and raises ShardError for a shard that it cannot read.
        note: called with a sentence about each repair.

    Raises:
        ShardError: shards are damaged repeatedly, or the damaged shards are another run's.
    """
    quarantine_damaged(store, note)
    delete_leftovers(store)
    for _ in range(MAX_SESSIONS - 1):
        try:
            result = session()
        except ShardError:
            if not quarantine_damaged(store, note):
                raise  # it belongs to another run
        else:
            if not quarantine_damaged(store, note):
                delete_leftovers(store)
                return result
    return session()


def is_whole(store: ShardStore, batches: int, note: Callable[[str], None]) -> bool:
    """Return whether a run still has this many batches; damaged ones are quarantined and count as missing."""
    quarantine_damaged(store, note)
    return len(store.committed()) >= batches


def quarantine_damaged(store: ShardStore, note: Callable[[str], None]) -> int:
    """Quarantine damaged shards, so that their batches are made again, and note each; returns their number."""
    damaged = store.quarantine_damaged()
    for damage in damaged:
        note(f"{damage}; it is quarantined, and its batch is made again")
    return len(damaged)


def delete_leftovers(store: ShardStore) -> None:
    """Delete the checkpoints that generators left of batches which were then committed; raises OSError."""
    UnfinishedBatches(store.folder).delete_leftovers(store.committed())
