"""The roster: which generators can be given an order, and what follows when one fails. Decisions only, no Ray."""

from dataclasses import dataclass

from raydream.errors import RaydreamError
from raydream.store.records import BatchId

MAX_TRIES = 4
"""of a batch; after that the batch itself is at fault, unless there is a generator that has not failed at it yet"""
MAX_FAILURES = 3
"""of a generator in a row; after that it is taken out"""


@dataclass
class _Job:
    generator: int
    heard: float


class Roster:
    """Generators by number, from the moment each of them first answers.

    A generator that fails leaves, and is back once it answers again; one that keeps failing does not come back. Its
    batch is made again by whoever is idle, rather by one that has not failed at it; a batch at which generators keep
    failing ends the run.

    Args:
        patience_s: seconds without any news of a batch after which its generator counts as hung.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._idle: list[int] = []
        self._jobs: dict[BatchId, _Job] = {}
        self._tries: dict[BatchId, list[int]] = {}
        self._failures: dict[int, int] = {}
        self.retired: list[int] = []

    @property
    def in_flight(self) -> list[BatchId]:
        """Batches in the making."""
        return list(self._jobs)

    @property
    def at_hand(self) -> int:
        """Generators that are idle or at work."""
        return len(self._idle) + len(self._jobs)

    def has_idle(self) -> bool:
        """Whether a generator can be given an order."""
        return bool(self._idle)

    def joined(self, generator: int) -> None:
        """A generator has answered, for the first time or again."""
        self._idle.append(generator)

    def dismiss(self) -> int | None:
        """An idle generator leaves, for which there is no room any more; None where all are at work."""
        return self._idle.pop() if self._idle else None

    def begin(self, batch: BatchId, now: float) -> int:
        """The idle generator that has waited longest, of those that have not failed at it if there are any, begins."""
        tried = self._tries.get(batch, [])
        generator = next((idle for idle in self._idle if idle not in tried), self._idle[0])
        self._idle.remove(generator)
        self._jobs[batch] = _Job(generator, now)
        return generator

    def heard(self, batch: BatchId, now: float) -> None:
        """News of a batch in the making; late news of one that is done is ignored."""
        if batch in self._jobs:
            self._jobs[batch].heard = now

    def hung(self, now: float) -> list[tuple[BatchId, int]]:
        """Batches of which nothing was heard for too long, with their generators."""
        return [(batch, job.generator) for batch, job in self._jobs.items() if now - job.heard > self._patience_s]

    def maker(self, batch: BatchId) -> int:
        """Who makes a batch that is in the making."""
        return self._jobs[batch].generator

    def done(self, batch: BatchId) -> int:
        """A batch is made; its generator is idle again."""
        generator = self._jobs.pop(batch).generator
        self._failures.pop(generator, None)
        self._idle.append(generator)
        return generator

    def failed(self, batch: BatchId, reason: str, blame: bool = True) -> int:
        """A batch was not made, and its generator has left.

        Args:
            reason: what is said if the run has to end.
            blame: whether it counts against generator and batch; a machine that went away does not.

        Returns:
            the generator, which is in `retired` if it is taken out for good.

        Raises:
            RaydreamError: the batch has failed too often.
        """
        generator = self._jobs.pop(batch).generator
        if blame:
            tries = self._tries.setdefault(batch, [])
            tries.append(generator)
            self._failures[generator] = self._failures.get(generator, 0) + 1
            others = {*self._idle, *(job.generator for job in self._jobs.values())}
            if len(tries) >= MAX_TRIES and others <= set(tries):
                raise RaydreamError(f"generators failed {len(tries)} times at batch {batch}: {reason}")
            if self._failures[generator] >= MAX_FAILURES:
                self.retired.append(generator)
        return generator
