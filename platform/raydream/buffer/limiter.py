"""Limiters: the rule that ties insertions to draws, as the rate limiter of DeepMind's Reverb does.

A limiter decides from a `Progress` alone and keeps no state, so a restart does not affect it.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from raydream.config import DistillConfig
from raydream.errors import InputError
from raydream.schedule import Schedule
from raydream.store.records import BatchId


@dataclass(frozen=True)
class Progress:
    """The state of a run that a limiter decides from.

    Attributes:
        held: batches that have joined the buffer.
        complete_rounds: rounds, from round 0 on without a gap, all of whose batches have joined.
        in_flight: batches that generators are making.
        drawn_steps: distillation steps whose images were handed out; of a resumed student, its steps.
        snapshot_step: steps of the newest snapshot that may compete; None before there is one.
        missing: what the student waits for, see `Limiter.missing`; empty: it does not wait. No limiter looks at it.
    """

    held: int = 0
    complete_rounds: int = 0
    in_flight: int = 0
    drawn_steps: int = 0
    snapshot_step: int | None = None
    missing: str = ""


class Limiter(Protocol):
    """The rule that decides when a batch may be made and when images may be drawn."""

    def may_start(self, batch: BatchId, progress: Progress) -> bool:
        """Return whether a generator may begin this batch now."""

    def due(self, batch: BatchId) -> int | None:
        """Return the step of the snapshot that a batch must compete with; None: the newest."""

    def may_draw(self, end_step: int, progress: Progress) -> bool:
        """Return whether the images of all steps before `end_step` may be handed out now."""

    def visible_round(self, step: int) -> int | None:
        """Return the newest round that a step may draw from; None: all that are held."""

    def missing(self, end_step: int, progress: Progress) -> str:
        """Describe what a refused draw waits for."""


class Lockstep:
    """Alternates strictly: a round is made with the snapshot at its beginning, and the student waits for it.

    Args:
        schedule: of the run.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def may_start(self, batch: BatchId, progress: Progress) -> bool:
        due = self.due(batch)
        if due is None:
            return True
        # The student is beyond that step only if a batch is made again.
        return progress.complete_rounds >= batch.round and (progress.snapshot_step or 0) >= due

    def due(self, batch: BatchId) -> int | None:
        return batch.round * self._schedule.steps_per_round if batch.round else None

    def may_draw(self, end_step: int, progress: Progress) -> bool:
        return progress.complete_rounds > self._schedule.round_of_step(end_step - 1)

    def visible_round(self, step: int) -> int | None:
        return self._schedule.round_of_step(step)

    def missing(self, end_step: int, progress: Progress) -> str:
        return f"the batches of round {progress.complete_rounds}"


class SamplesPerInsert:
    """Runs generators and student concurrently, and keeps both near the schedule's ratio.

    A batch is worth as many samples as the schedule draws for each (a round's steps x images per step / batches), so
    a run comes out even. The balance is what the batches beyond the minimum fill are worth, less the images drawn.
    Drawing may take it down to -bound, inserting up to +bound. Until the minimum fill is reached only inserting is
    allowed, and the final steps wait for the last batch. The bound limits how far the two sides drift apart, not the
    age of one batch: while its generator is slow, others continue.

    Args:
        schedule: of the run; its initial batches are the minimum fill.
        error_bound: in images drawn, > 0; None: one round's, or what the other settings need.
        first_snapshot: steps before the first snapshot that may compete; 0 if no student competes.
        block_steps: steps drawn at a time.

    Raises:
        InputError: a bound with which both sides would wait for each other forever.
    """

    def __init__(
        self, schedule: Schedule, error_bound: float | None = None, first_snapshot: int = 0, block_steps: int = 1
    ) -> None:
        self._schedule, self._first_snapshot = schedule, first_snapshot
        # Exact, as a rounding error would stop a run whose bound is as tight as can be.
        self._worth = Fraction(schedule.steps_per_round * schedule.draw, schedule.batches_per_round)
        block = block_steps * schedule.draw
        # Both sides are refused at once only if a block would take the balance below -bound and a batch above +bound.
        needed = max(math.ceil((block + self._worth) / 2), first_snapshot * schedule.draw + block)
        self._bound = max(needed, schedule.steps_per_round * schedule.draw) if error_bound is None else error_bound
        if self._bound < needed and schedule.rounds:
            raise InputError(
                "buffer.error_bound",
                error_bound,
                f">= {needed} samples ({block_steps} steps of {schedule.draw} images at a time, batches worth "
                f"{float(self._worth):g} samples, first snapshot after {first_snapshot} steps)",
                "below that students and generators would wait for each other forever, so raise it or omit it",
            )

    def may_start(self, batch: BatchId, progress: Progress) -> bool:
        if batch.round > 0 and self._first_snapshot and progress.snapshot_step is None:
            return False
        begun = progress.held + progress.in_flight + 1
        return begun <= self._schedule.initial_batches or self._balance(begun, progress.drawn_steps) <= self._bound

    def due(self, batch: BatchId) -> int | None:
        return None

    def may_draw(self, end_step: int, progress: Progress) -> bool:
        if progress.held < self._schedule.initial_batches:
            return False
        if progress.held >= self._schedule.total_batches:
            return True
        if end_step > self._schedule.round_steps:
            return False
        return self._balance(progress.held, max(end_step, progress.drawn_steps)) >= -self._bound

    def visible_round(self, step: int) -> int | None:
        return None

    def missing(self, end_step: int, progress: Progress) -> str:
        fill = max(self._schedule.initial_batches, progress.held + 1)
        return f"batch {fill} of {self._schedule.total_batches} (the buffer holds {progress.held})"

    def _balance(self, batches: int, drawn_steps: int) -> Fraction:
        return (batches - self._schedule.initial_batches) * self._worth - drawn_steps * self._schedule.draw


def make_limiter(config: DistillConfig, schedule: Schedule, settle_steps: int) -> Limiter:
    """Make the limiter that a configuration selects.

    Args:
        settle_steps: training steps until the student's BN statistics may be competed with.

    Raises:
        InputError: settings with which the run would stall (see `SamplesPerInsert`), or rounds too short for the
            student's statistics to settle.
    """
    competes = config.synthesis.competes and schedule.rounds > 0
    first = first_snapshot(schedule, settle_steps) if competes else 0
    if first > schedule.round_steps:
        raise InputError(
            "rounds.count",
            config.rounds.count,
            f"enough for {first} distillation steps before the final ones (it gives {schedule.round_steps})",
            "a student must not compete before its BN statistics have settled: raise it or buffer.samples_per_insert",
        )
    if config.rounds.lockstep:
        if competes and schedule.steps_per_round < settle_steps:
            raise InputError(
                "buffer.samples_per_insert",
                config.buffer.samples_per_insert,
                f"large enough for {settle_steps} steps a round (it gives {schedule.steps_per_round})",
                "a student must not compete before its BN statistics have settled, so raise it, rounds.batches or "
                "synthesis.batch_size",
            )
        return Lockstep(schedule)
    return SamplesPerInsert(schedule, config.buffer.error_bound, first, config.buffer.block_steps)


def opponent(limiter: Limiter, batch: BatchId, newest: int | None) -> int | None:
    """Return the step of the snapshot that a batch competes with: the one that its limiter requires, else the newest.

    Args:
        newest: steps of the newest snapshot; None: there is none yet.

    Returns:
        None if the batch competes with no snapshot: in round 0, or before there is one.
    """
    if batch.round == 0:
        return None
    due = limiter.due(batch)
    return newest if due is None else due


def first_snapshot(schedule: Schedule, settle_steps: int) -> int:
    """Return the steps of the first snapshot that may compete: the first one due at or after `settle_steps`."""
    step = 1
    while not (step >= settle_steps and schedule.is_snapshot(step)):
        step += 1
    return step
