"""The buffer actor: hands out draws and takes in batches. It moves handles, never pixels."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from raydream.buffer.index import BufferIndex, Draw
from raydream.buffer.limiter import Limiter, Progress
from raydream.buffer.sampler import uniform_draw
from raydream.errors import StallError
from raydream.runtime.logs import name_logs
from raydream.schedule import Schedule
from raydream.store.folders import Folder
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BufferPlan:
    """Settings of the run that the buffer works by.

    Attributes:
        schedule, limiter: of the run.
        run_seed: from which draws are derived.
        shards: folder of the committed shards.
        block_steps: distillation steps per draw.
        most_handles: batches kept in the object store.
        stall_timeout_s: how long a draw waits with nothing joining before it gives up.
    """

    schedule: Schedule
    limiter: Limiter
    run_seed: int
    shards: Folder
    block_steps: int
    most_handles: int
    stall_timeout_s: float


class Buffer:
    """Holds the generators' batches, from which the student draws.

    A restarted buffer is rebuilt from the committed shards: it then knows no object references, and readers go to
    the shards instead. Every method can be repeated safely.
    """

    def __init__(self, plan: BufferPlan) -> None:
        name_logs("buffer")
        self._plan = plan
        self._index = BufferIndex(plan.schedule.batch_images, plan.most_handles)
        for batch in ShardStore(plan.shards).committed():
            self._index.insert(batch)
        log.info("%d batches are committed", self._index.count())
        self._drawn_steps = self._rounds = 0
        self._blocks: dict[int, Draw] = {}
        self._missing = ""
        self._changed = asyncio.Condition()

    async def insert(self, batch: BatchId, handle: list[Any]) -> bool:
        """Add a committed batch; returns True if it is new.

        Args:
            handle: a list with the reference to its `ImageBatch`; a bare reference would be fetched by Ray.
        """
        new = self._index.insert(batch, handle[0])
        async with self._changed:
            self._changed.notify_all()
        return new

    async def draw(self, first_step: int, rank: int, workers: int) -> Draw:
        """Return the images that a worker needs for the block of steps that begins at `first_step`.

        Waits until the limiter allows it. All workers of one block get parts of the same draw, split evenly.

        Raises:
            StallError: nothing has joined for the stall timeout; names what is missing.
        """
        end_step = self._plan.schedule.block_end(first_step, self._plan.block_steps)
        self._drawn_steps = max(self._drawn_steps, first_step)  # a restarted buffer learns it only from this call
        await self._wait_until_drawable(end_step)
        if first_step not in self._blocks:
            # The newest two are kept: workers are at most one block apart, as every gradient step joins them.
            newest = dict(list(self._blocks.items())[-1:])
            self._blocks = {**newest, first_step: self._make_block(first_step, end_step)}
        self._drawn_steps = max(self._drawn_steps, end_step)
        return self._blocks[first_step].part(rank, workers)

    async def handles(self, batches: list[BatchId]) -> list[Any]:
        """Return references to `ImageBatch`es in the object store; None where the shard must be read.

        Separate from `draw`, as references cost much more than ids: a worker asks once for the batches that it keeps.
        """
        return self._index.handles(batches)

    async def status(self) -> Progress:
        """Return what the buffer knows of the `Progress` that a limiter decides from."""
        return Progress(
            held=self._index.count(),
            complete_rounds=self._complete_rounds(),
            drawn_steps=self._drawn_steps,
            missing=self._missing,
        )

    def _make_block(self, first_step: int, end_step: int) -> Draw:
        plan = self._plan
        positions = []
        for step in range(first_step, end_step):
            batches = self._index.count(plan.limiter.visible_round(step))
            images = batches * plan.schedule.batch_images
            positions.append(uniform_draw(plan.run_seed, step, images, plan.schedule.draw))
        return self._index.locate(positions)

    async def _wait_until_drawable(self, end_step: int) -> None:
        async with self._changed:
            while not self._plan.limiter.may_draw(end_step, await self.status()):
                self._missing = self._plan.limiter.missing(end_step, await self.status())
                try:
                    await asyncio.wait_for(self._changed.wait(), self._plan.stall_timeout_s)
                except TimeoutError:
                    raise StallError(
                        f"the student has waited {self._plan.stall_timeout_s:g} s for {self._missing}, "
                        "and no generator has delivered anything in that time"
                    ) from None
            self._missing = ""

    def _complete_rounds(self) -> int:
        schedule = self._plan.schedule
        while self._rounds <= schedule.rounds and self._index.count(self._rounds) >= schedule.batches_before_round(
            self._rounds + 1
        ):
            self._rounds += 1  # never fewer again, as a batch that is held stays
        return self._rounds
