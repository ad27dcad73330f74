from pathlib import Path

import pytest

from raydream.errors import ShardError
from raydream.runtime.repair import MAX_SESSIONS, with_whole_shards
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from tests.tiny import shard_path, some_batch

BATCH = BatchId(1, 2)


class Session:
    """Makes the batch if it is missing, and finds it damaged by somebody so many times."""

    def __init__(self, store: ShardStore, damages: int) -> None:
        self.store, self.damages, self.made = store, damages, 0

    def __call__(self) -> str:
        if not self.store.has(BATCH):
            self.store.write(some_batch())
            self.made += 1
        if self.damages:
            self.damages -= 1
            shard_path(self.store, BATCH).write_bytes(b"damaged")
        self.store.read(BATCH)
        return "done"


@pytest.mark.parametrize("damages", [0, 1, MAX_SESSIONS - 1])
def test_what_is_damaged_meanwhile_is_set_aside_and_made_again(tmp_path: Path, damages: int) -> None:
    noted: list[str] = []
    session = Session(ShardStore(tmp_path), damages)
    assert with_whole_shards(session.store, session, noted.append) == "done"
    assert session.made == 1 + damages
    assert len(list(tmp_path.glob("_damaged-*"))) == damages
    assert sum("is made again" in text for text in noted) == damages


def test_what_was_damaged_before_is_mended_first(tmp_path: Path) -> None:
    noted: list[str] = []
    session = Session(ShardStore(tmp_path), 0)
    shard_path(session.store, BATCH).write_bytes(b"damaged")
    assert with_whole_shards(session.store, session, noted.append) == "done"
    assert session.made == 1 and len(noted) == 1 and "r0001-b0002" in noted[0]


def test_what_was_damaged_after_it_was_read_is_found_at_the_end(tmp_path: Path) -> None:
    store, noted, damages = ShardStore(tmp_path), [], [1]

    def session() -> str:
        if not store.has(BATCH):
            store.write(some_batch())
        store.read(BATCH)
        if damages:
            damages.pop()
            shard_path(store, BATCH).write_bytes(b"damaged")
        return "done"

    assert with_whole_shards(store, session, noted.append) == "done"
    assert store.read(BATCH) and len(noted) == 1


def test_a_damaged_shard_of_somebody_else_is_not_mended_here(tmp_path: Path) -> None:
    sessions = []

    def session() -> str:
        sessions.append(1)
        raise ShardError("the shard of another run cannot be read")

    with pytest.raises(ShardError, match="of another run"):
        with_whole_shards(ShardStore(tmp_path), session, lambda text: None)
    assert len(sessions) == 1


def test_a_disk_that_damages_everything_is_given_up(tmp_path: Path) -> None:
    session = Session(ShardStore(tmp_path), 100)
    with pytest.raises(ShardError, match="r0001-b0002"):
        with_whole_shards(session.store, session, lambda text: None)
    assert session.made == MAX_SESSIONS
