"""Does the cost per batch stay flat at a thousand generators and ten million images?

    python benchmarks/simulate_scale.py [--generators 1000] [--images 10000000] [--json OUT]

The project's own limiter, roster, buffer, sampler and shard index decide everything, as in a run; only the generators
and the student are simulated: they take their time on a clock that costs nothing. What is measured is the real time
that the deciding takes, per batch or per draw, tenth by tenth of the run, and what a restart costs at its end.
"""

import argparse
import asyncio
import heapq
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from raydream.buffer.limiter import SamplesPerInsert
from raydream.runtime.buffer import Buffer, BufferPlan
from raydream.runtime.roster import Roster
from raydream.runtime.session import machine_text
from raydream.schedule import Schedule
from raydream.store.atomic import write_json
from raydream.store.folders import LocalFolder
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore, file_name

BATCH_IMAGES, DRAW, BLOCK_STEPS, ROUNDS = 84, 256, 5, 100
BATCH_S = 30.0
"""of a generator, on average: the paper's multi-resolution setting on a large GPU"""
PARTS = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generators", type=int, default=1000)
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    per_round = given.images // BATCH_IMAGES // (ROUNDS + 1)
    schedule = Schedule(
        initial_batches=per_round,
        rounds=ROUNDS,
        batches_per_round=per_round,
        batch_images=BATCH_IMAGES,
        steps_per_round=per_round * BATCH_IMAGES // DRAW,
        final_steps=1000,
        snapshot_steps=100,
        draw=DRAW,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Simulation(schedule, given.generators, Path(folder))
        asyncio.run(run.run())
        result = {
            "generators": given.generators,
            "batches": schedule.total_batches,
            "simulated_hours": run.now / 3600,
            "parts": run.parts,
            **_restart(schedule, Path(folder)),
            **machine_text(),
        }
    _show(result)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.json, result)


@dataclass
class Simulation:
    """A run on a simulated clock.

    Attributes:
        now: simulated seconds.
        parts: per tenth of the run, real microseconds per call by what was decided.
    """

    schedule: Schedule
    generators: int
    folder: Path
    now: float = 0.0
    parts: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limiter = SamplesPerInsert(self.schedule, block_steps=BLOCK_STEPS)
        plan = BufferPlan(
            self.schedule, self.limiter, 0, LocalFolder(self.folder), BLOCK_STEPS, self.schedule.total_batches, 1.0
        )
        self.buffer, self.roster, self.chance = Buffer(plan), Roster(600.0), random.Random(0)
        self.pending, self.making = self.schedule.batch_ids(), list[tuple[float, BatchId]]()
        self.spent: dict[str, list[float]] = defaultdict(list)
        self.step, self.student_at = 0, 0.0
        rate = (
            self.generators / BATCH_S
        )  # the student is as fast as the generators, so that both are held back at times
        self.step_s = self.schedule.batches_per_round / rate / self.schedule.steps_per_round
        for generator in range(self.generators):
            self.roster.joined(generator)

    async def run(self) -> None:
        """To the end of the student's training; raises RuntimeError where neither side may go on."""
        done, total = 0, self.schedule.total_batches
        while self.step < self.schedule.total_steps:
            await self._begin()
            waits = self.student_at <= self.now and not await self._draw()
            if self.making and (waits or self.making[0][0] <= self.student_at):
                done += await self._finish()
            elif not waits:
                self.now = self.student_at
            else:
                raise RuntimeError(f"nothing can go on: {done} of {total} batches, {self.step} steps")
            if done * PARTS >= (len(self.parts) + 1) * total:
                self._close_part()

    async def _begin(self) -> None:
        progress = replace(await self.buffer.status(), in_flight=len(self.making))
        while self.pending and self.roster.has_idle():
            began = time.perf_counter()
            if not self.limiter.may_start(self.pending[0], progress):
                return
            batch = heapq.heappop(self.pending)
            self.roster.begin(batch, self.now)
            self.spent["begin"].append(time.perf_counter() - began)
            heapq.heappush(self.making, (self.now + BATCH_S * self.chance.uniform(0.5, 1.5), batch))
            progress = replace(progress, in_flight=len(self.making))

    async def _finish(self) -> int:
        at, batch = heapq.heappop(self.making)
        self.now, began = max(self.now, at), time.perf_counter()
        self.roster.done(batch)
        new = await self.buffer.insert(batch, ["a reference"])
        self.spent["finish"].append(time.perf_counter() - began)
        return int(new)

    async def _draw(self) -> bool:
        """Whether the student could draw its next block, on which it is busy then."""
        end = self.schedule.block_end(self.step, BLOCK_STEPS)
        if not self.limiter.may_draw(end, await self.buffer.status()):
            return False
        began = time.perf_counter()
        draw = await self.buffer.draw(self.step, 0, 1)
        await self.buffer.handles(draw.batches)
        self.spent["draw"].append(time.perf_counter() - began)
        self.step, self.student_at = end, self.now + self.step_s * (end - self.step)
        return True

    def _close_part(self) -> None:
        means = {name: 1e6 * sum(seconds) / len(seconds) for name, seconds in self.spent.items()}
        self.parts.append(means)
        self.spent.clear()


def _restart(schedule: Schedule, folder: Path) -> dict[str, float]:
    """Seconds to find all shards by name again, and for a buffer to be back."""
    store = ShardStore(folder)
    for batch in schedule.batch_ids():
        (folder / file_name(batch)).touch()
    began = time.perf_counter()
    found = len(store.committed())
    listed = time.perf_counter()
    assert found == schedule.total_batches
    Buffer(BufferPlan(schedule, SamplesPerInsert(schedule), 0, LocalFolder(folder), BLOCK_STEPS, found, 1.0))
    return {"listing_s": listed - began, "buffer_restart_s": time.perf_counter() - listed}


def _show(result: dict[str, Any]) -> None:
    table = Table(title=f"microseconds of deciding; {result['batches']} batches, {result['generators']} generators")
    for name in ("tenth of the run", "beginning a batch", "taking a batch in", "drawing 5 steps of 256"):
        table.add_column(name, justify="right")
    for index, part in enumerate(result["parts"], 1):
        table.add_row(str(index), *(f"{part.get(name, float('nan')):.0f}" for name in ("begin", "finish", "draw")))
    console = Console()
    console.print(table)
    console.print(
        f"listing all shards: {result['listing_s']:.2f} s; a buffer is back in {result['buffer_restart_s']:.2f} s"
    )


if __name__ == "__main__":
    main()
