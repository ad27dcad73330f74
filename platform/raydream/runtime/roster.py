"""The roster: which generators can take an order, and what follows when one fails. Decisions only, no Ray."""

from dataclasses import dataclass

from raydream.errors import RaydreamError
from raydream.store.records import BatchId

MAX_TRIES = 4
"""failures of a batch; after that the batch itself is at fault, unless some generator has not failed at it yet"""
MAX_FAILURES = 3
"""failures of a generator in a row, after which it is removed"""


@dataclass
class _Job:
    generator: int
    heard: float


class Roster:
    """Generators by number, from the moment each of them first answers.

    A generator that fails leaves, and rejoins once it answers again; one that keeps failing does not. Its batch is made
    again by an idle generator, preferably one that has not failed at it; a batch at which generators keep failing ends
    the run.

    Args:
        patience_s: seconds without a report on a batch after which its generator counts as hung.
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
        """Return the batches in progress."""
        return list(self._jobs)

    @property
    def at_hand(self) -> int:
        """Return the number of generators that are idle or busy."""
        return len(self._idle) + len(self._jobs)

    def has_idle(self) -> bool:
        """Return whether a generator is idle and can take an order."""
        return bool(self._idle)

    def joined(self, generator: int) -> None:
        """Add a generator that has answered, for the first time or again."""
        self._idle.append(generator)

    def dismiss(self) -> int | None:
        """Remove an idle generator for which there is no room any more, and return it; None if all are busy."""
        return self._idle.pop() if self._idle else None

    def begin(self, batch: BatchId, now: float) -> int:
        """Assign a batch to the idle generator that has waited longest, preferably one that has not failed at it."""
        tried = self._tries.get(batch, [])
        generator = next((idle for idle in self._idle if idle not in tried), self._idle[0])
        self._idle.remove(generator)
        self._jobs[batch] = _Job(generator, now)
        return generator

    def heard(self, batch: BatchId, now: float) -> None:
        """Take note of a report on a batch in progress; a late report on a finished one is ignored."""
        if batch in self._jobs:
            self._jobs[batch].heard = now

    def hung(self, now: float) -> list[tuple[BatchId, int]]:
        """Return the batches without a report for too long, with their generators."""
        return [(batch, job.generator) for batch, job in self._jobs.items() if now - job.heard > self._patience_s]

    def maker(self, batch: BatchId) -> int:
        """Return the generator of a batch in progress."""
        return self._jobs[batch].generator

    def done(self, batch: BatchId) -> int:
        """Mark a batch as made; its generator is idle again."""
        generator = self._jobs.pop(batch).generator
        self._failures.pop(generator, None)
        self._idle.append(generator)
        return generator

    def failed(self, batch: BatchId, reason: str, blame: bool = True) -> int:
        """Mark a batch as failed and remove its generator.

        Args:
            reason: for the error if the run has to end.
            blame: whether it counts against generator and batch; the loss of a machine does not.

        Returns:
            the generator, which is in `retired` if it is removed for good.

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
