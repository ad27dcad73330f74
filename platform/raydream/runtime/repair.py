"""What makes a run whole again: damaged shards are quarantined, and their batches made once more."""

from collections.abc import Callable
from typing import TypeVar

from raydream.errors import ShardError
from raydream.store.shards import ShardStore

MAX_SESSIONS = 4
"""that one run may need; a disk that damages more shards than that is not worth writing to"""

Result = TypeVar("Result")


def with_whole_shards(store: ShardStore, session: Callable[[], Result], note: Callable[[str], None]) -> Result:
    """Run a session on shards that can be read; if one is damaged meanwhile, mend it and begin the next session.

    Beginning anew is the same as resuming: all that counts lies in the shards and the checkpoints. When a session
    ends, all shards are read once more: what it did not need to read may be damaged as well.

    Args:
        session: makes what is missing, and raises ShardError where it meets a shard that it cannot read.
        note: where to tell of what was mended.

    Raises:
        ShardError: shards are damaged again and again, or those of another run are.
    """
    quarantine_damaged(store, note)
    for _ in range(MAX_SESSIONS - 1):
        try:
            result = session()
        except ShardError:
            if not quarantine_damaged(store, note):
                raise  # it is not ours
        else:
            if not quarantine_damaged(store, note):
                return result
    return session()


def is_whole(store: ShardStore, batches: int, note: Callable[[str], None]) -> bool:
    """Whether a run still has so many batches; those that are damaged are quarantined, and it lacks them."""
    quarantine_damaged(store, note)
    return len(store.committed()) >= batches


def quarantine_damaged(store: ShardStore, note: Callable[[str], None]) -> int:
    """Quarantine damaged shards, so that their batches are made again, and tell of it; returns how many."""
    damaged = store.quarantine_damaged()
    for damage in damaged:
        note(f"{damage}; it is quarantined, and its batch is made again")
    return len(damaged)
