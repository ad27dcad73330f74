"""The buffer as the object that it is, without the actor around it."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from raydream.buffer.limiter import Lockstep
from raydream.config import DistillConfig
from raydream.errors import StallError
from raydream.runtime.buffer import Buffer, BufferPlan
from raydream.schedule import Schedule
from raydream.store.folders import LocalFolder
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from tests.tiny import some_batch

SCHEDULE = Schedule.of(
    DistillConfig(
        synthesis={"method": "deep_inversion", "batch_size": 5},
        student={"batch_size": 5},
        buffer={"samples_per_insert": 3},
        rounds={"initial_batches": 2, "count": 2, "batches": 1, "final_steps": 4},
    )
)


def buffer_on(folder: Path, stall_timeout_s: float = 10.0) -> Buffer:
    """A buffer as it begins, or as it is restarted by Ray."""
    return Buffer(BufferPlan(SCHEDULE, Lockstep(SCHEDULE), 7, LocalFolder(folder), 2, 10, stall_timeout_s))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    store = ShardStore(tmp_path)
    for batch in ("r0000-b0000", "r0000-b0001", "r0001-b0000"):
        store.write(some_batch(batch))
    return tmp_path


def test_a_restarted_buffer_knows_all_committed_shards_and_draws_as_before(shards: Path) -> None:
    one, other = buffer_on(shards), buffer_on(shards)
    status = asyncio.run(one.status())
    assert (status.held, status.complete_rounds) == (3, 2)
    before, after = (asyncio.run(each.draw(0, 0, 1)) for each in (one, other))
    assert before.batches == after.batches == [BatchId(0, 0), BatchId(0, 1)]
    assert all(np.array_equal(*picks) for picks in zip(before.picks, after.picks, strict=True))
    assert asyncio.run(other.handles(before.batches)) == [None, None], "their shards are read instead"


def test_workers_of_one_block_get_parts_of_one_draw(shards: Path) -> None:
    buffer = buffer_on(shards)
    whole = [pick.tolist() for pick in asyncio.run(buffer_on(shards).draw(2, 0, 1)).picks]
    parts = [asyncio.run(buffer.draw(2, rank, 2)).picks for rank in (1, 0)]
    assert [sorted(row for part in parts for row in part[step].tolist()) for step in range(len(whole))] == [
        sorted(pick) for pick in whole
    ]


def test_a_draw_that_waits_is_let_go_by_the_batch_that_joins_and_a_stall_names_what_is_missing(shards: Path) -> None:
    async def joined_while_waiting() -> int:
        buffer = buffer_on(shards)
        waiting = asyncio.create_task(buffer.draw(2 * SCHEDULE.steps_per_round, 0, 1))
        await asyncio.sleep(0)
        assert not waiting.done() and (await buffer.status()).missing == "the batches of round 2"
        assert await buffer.insert(BatchId(2, 0), [None]) and not await buffer.insert(BatchId(2, 0), [None])
        picks = (await waiting).picks
        assert (await buffer.status()).missing == ""
        return len(picks)

    assert asyncio.run(joined_while_waiting()) == 2
    with pytest.raises(StallError, match=r"waited 0.05 s for the batches of round 2"):
        asyncio.run(buffer_on(shards, stall_timeout_s=0.05).draw(2 * SCHEDULE.steps_per_round, 0, 1))
