"""What makes a run whole again: damaged shards are set aside, and their batches made once more."""

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
    set_damaged_aside(store, note)
    for _ in range(MAX_SESSIONS - 1):
        try:
            result = session()
        except ShardError:
            if not set_damaged_aside(store, note):
                raise  # it is not ours
        else:
            if not set_damaged_aside(store, note):
                return result
    return session()


def is_whole(store: ShardStore, batches: int, note: Callable[[str], None]) -> bool:
    """Whether a run still has so many batches; those that are damaged are set aside, and it lacks them."""
    set_damaged_aside(store, note)
    return len(store.committed()) >= batches


def set_damaged_aside(store: ShardStore, note: Callable[[str], None]) -> int:
    """Set damaged shards aside, so that their batches are made again, and tell of it; returns how many."""
    damaged = store.set_aside_damaged()
    for damage in damaged:
        note(f"{damage}; it is set aside, and its batch is made again")
    return len(damaged)
