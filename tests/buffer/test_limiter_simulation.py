"""A run without images or processes: generators and a student of random speeds, and what the limiter lets them do.

Generators finish out of order. The student draws blocks of steps, the next one while it trains on the last, as the
runtime's student does. Whatever the speeds, a run must go on until all is made and learned.
"""

import math
import random
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from raydream.buffer.limiter import Limiter, Lockstep, Progress, SamplesPerInsert, first_snapshot, make_limiter
from raydream.config import DistillConfig
from raydream.schedule import Schedule
from raydream.store.records import BatchId


@dataclass
class Run:
    """The state of a simulated run; `moves` is what may happen next, and `move` does one of them.

    Attributes:
        drawn: steps whose images were handed out; the last block of them may still wait for the student to take it.
        taken: steps whose images the student has.
        trained: steps done.
        snapshot: steps behind the newest snapshot that may compete.
    """

    schedule: Schedule
    limiter: Limiter
    generators: int
    block_steps: int
    settle_steps: int = 0
    held: list[BatchId] = field(default_factory=list)
    in_flight: list[BatchId] = field(default_factory=list)
    drawn: int = 0
    taken: int = 0
    trained: int = 0
    snapshot: int | None = None

    def __post_init__(self) -> None:
        self.pending = self.schedule.batch_ids()

    @property
    def progress(self) -> Progress:
        return Progress(len(self.held), self.complete_rounds, len(self.in_flight), self.drawn, self.snapshot)

    @property
    def complete_rounds(self) -> int:
        complete = 0
        while complete <= self.schedule.rounds and set(self.schedule.batches_of(complete)) <= set(self.held):
            complete += 1
        return complete

    @property
    def block_end(self) -> int:
        return self.schedule.block_end(self.taken, self.block_steps)

    def moves(self) -> list[str]:
        possible = []
        if self.pending and len(self.in_flight) < self.generators:
            possible += ["start"] if self.limiter.may_start(self.pending[0], self.progress) else []
        if self.in_flight:
            possible.append("finish")
        if self.drawn == self.taken < self.schedule.total_steps:
            possible += ["draw"] if self.limiter.may_draw(self.block_end, self.progress) else []
        if self.trained < self.taken or self.drawn > self.taken:
            possible.append("train")
        return possible

    def move(self, name: str, chance: random.Random) -> None:
        if name == "start":
            self.in_flight.append(self.pending.pop(0))
        elif name == "finish":
            self.held.append(self.in_flight.pop(chance.randrange(len(self.in_flight))))
        elif name == "draw":
            self.drawn = self.block_end
        else:
            if self.trained == self.taken:
                self.taken = self.drawn
            self.trained += 1
            if self.schedule.is_snapshot(self.trained) and self.trained >= self.settle_steps:
                self.snapshot = self.trained

    def resume(self, chance: random.Random, losses: int) -> None:
        """What is left when all processes were killed: the checkpoint of the last round's end, and the shards.

        The buffer knows nothing of what was drawn; the driver knows the checkpoint's step by the student's report.
        """
        for _ in range(min(losses, len(self.held))):
            self.held.pop(chance.randrange(len(self.held)))
        self.in_flight = []
        self.pending = [batch for batch in self.schedule.batch_ids() if batch not in self.held]
        while self.trained and not self.schedule.ends_round(self.trained):
            self.trained -= 1
        self.drawn = self.taken = self.trained
        self.snapshot = self.trained if self.trained and self.trained >= self.settle_steps else None

    @property
    def learned(self) -> bool:
        return self.trained == self.schedule.total_steps

    @property
    def made(self) -> bool:
        return not self.pending and not self.in_flight


def worth_of(schedule: Schedule) -> Fraction:
    """Samples drawn for each batch."""
    return Fraction(schedule.steps_per_round * schedule.draw, schedule.batches_per_round)


@dataclass(frozen=True)
class Setting:
    config: DistillConfig
    settle_steps: int

    @property
    def schedule(self) -> Schedule:
        return Schedule.of(self.config)

    @property
    def competes(self) -> bool:
        return self.config.synthesis.competes and self.schedule.rounds > 0

    def begin(self, generators: int) -> Run:
        limiter = make_limiter(self.config, self.schedule, self.settle_steps)
        settle = self.settle_steps if self.competes else 0
        return Run(self.schedule, limiter, generators, self.config.buffer.block_steps, settle)


@st.composite
def setting(draw: st.DrawFn, lockstep: bool = False) -> Setting:
    """Settings that `make_limiter` accepts, the tightest bound among them."""

    def number(most: int, least: int = 1) -> int:
        return draw(st.integers(least, most))

    count, ratio, block = number(5, 0), number(60) / 10, number(6)
    method, settle = draw(st.sampled_from(["deep_inversion", "adaptive"])), number(6)
    rounds = {"initial_batches": number(3), "count": count, "batches": number(3), "lockstep": lockstep}
    rounds["snapshot_steps"] = None if lockstep else draw(st.none() | st.integers(1, 7))
    config = DistillConfig(
        synthesis={"method": method, "batch_size": number(6)},
        student={"batch_size": number(6)},
        buffer={"samples_per_insert": ratio, "block_steps": block},
        rounds={**rounds, "final_steps": number(8, 0 if count else 1)},
    )
    plain = Schedule.of(config)
    competes = method == "adaptive" and count > 0
    if competes:
        settle = min(settle, plain.steps_per_round)  # else some settings would be refused
    first = first_snapshot(plain, settle) if competes else 0
    assume(first <= plain.round_steps)  # else refused
    tightest = max((block * plain.draw + worth_of(plain)) / 2, Fraction((first + block) * plain.draw))
    tightest = math.ceil(tightest)
    bound = draw(st.none() | st.sampled_from([0.0, 0.1, 1.0, 20.0]).map(lambda beyond: tightest + beyond))
    buffer = {"samples_per_insert": ratio, "block_steps": block, "error_bound": bound}
    return Setting(
        DistillConfig(synthesis=config.synthesis, student=config.student, buffer=buffer, rounds=config.rounds), settle
    )


SPEEDS = st.fixed_dictionaries({name: st.sampled_from([1, 5, 100]) for name in ("start", "finish", "draw", "train")})
EVERY = settings(max_examples=150, deadline=None, derandomize=True)


def play(run: Run, speeds: dict[str, int], seed: int):
    """Let a run go on until nobody may move, and show each state and the move that led to it."""
    chance = random.Random(seed)
    while moves := run.moves():
        (name,) = chance.choices(moves, [speeds[move] for move in moves])
        run.move(name, chance)
        yield name
    note(f"ended at {run}")


@EVERY
@given(setting(), st.integers(1, 4), SPEEDS, st.integers(0, 10**6))
def test_the_student_always_comes_to_its_last_step(setting, generators, speeds, seed):
    run = setting.begin(generators)
    list(play(run, speeds, seed))
    assert run.learned, "the student waits and nobody may move"


@EVERY
@given(setting(), st.integers(1, 4), SPEEDS, st.integers(0, 10**6))
def test_every_batch_of_the_run_is_made(setting, generators, speeds, seed):
    run = setting.begin(generators)
    list(play(run, speeds, seed))
    assert run.made, "the generators wait and nobody may move"


@EVERY
@given(setting(), st.integers(1, 4), SPEEDS, st.integers(0, 10**6))
def test_the_balance_stays_within_the_bound_and_nothing_is_drawn_before_the_minimum_fill(
    setting, generators, speeds, seed
):
    run, schedule, buffer = setting.begin(generators), setting.schedule, setting.config.buffer
    first = first_snapshot(schedule, setting.settle_steps) if setting.competes else 0
    block, worth = buffer.block_steps * schedule.draw, worth_of(schedule)
    default = max((block + worth) / 2, first * schedule.draw + block, schedule.steps_per_round * schedule.draw)
    default = math.ceil(default)
    bound = (default if buffer.error_bound is None else Fraction(buffer.error_bound)) + Fraction(1, 10**9)
    for name in play(run, speeds, seed):
        balance = (len(run.held) - schedule.initial_batches) * worth - run.drawn * schedule.draw
        assert balance <= bound or len(run.held) <= schedule.initial_batches
        if name == "draw":
            assert len(run.held) >= schedule.initial_batches
            assert balance >= -bound or len(run.held) == schedule.total_batches


@EVERY
@given(setting(), st.integers(1, 4), SPEEDS, st.integers(0, 10**6))
def test_no_batch_competes_before_the_students_statistics_have_settled(setting, generators, speeds, seed):
    run = setting.begin(generators)
    for name in play(run, speeds, seed):
        if name == "start" and setting.competes and run.in_flight[-1].round > 0:
            assert run.snapshot is not None and run.trained >= setting.settle_steps


@EVERY
@given(setting(lockstep=True), st.integers(1, 4), SPEEDS, st.integers(0, 10**6))
def test_a_run_in_lockstep_always_ends(setting, generators, speeds, seed):
    run = setting.begin(generators)
    list(play(run, speeds, seed))
    assert run.learned and run.made, "nobody may move"


@EVERY
@given(setting(lockstep=True), st.integers(1, 4), SPEEDS, st.integers(0, 10**6))
def test_lockstep_alternates_strictly(setting, generators, speeds, seed):
    run, schedule = setting.begin(generators), setting.schedule
    for name in play(run, speeds, seed):
        if name == "start":
            batch = run.in_flight[-1]
            due = batch.round * schedule.steps_per_round
            assert run.trained == run.taken == due and (batch.round == 0 or run.snapshot == due)
        if name == "train":
            visible = schedule.round_of_step(run.trained - 1)
            assert not run.in_flight, "the student learns while images are made"
            assert set(run.held) == {batch for batch in schedule.batch_ids() if batch.round <= visible}


@EVERY
@given(setting() | setting(lockstep=True), st.integers(1, 4), SPEEDS, st.integers(0, 10**6), st.integers(0, 3))
def test_a_run_goes_on_wherever_it_was_stopped_and_whatever_shards_were_lost(setting, generators, speeds, seed, losses):
    run, chance = setting.begin(generators), random.Random(seed)
    for name in play(run, speeds, seed):
        if name in ("finish", "train") and chance.random() < 0.1:
            run.resume(chance, losses)
            break
    list(play(run, speeds, seed))
    run.resume(chance, losses)  # a shard may be found damaged when all is done, too
    list(play(run, speeds, seed))
    assert run.learned and run.made, "nobody may move"


def greedy(run: Run, preferred: str) -> Run:
    """Play without chance: a preferred move where it may be, else any."""
    while moves := run.moves():
        run.move(preferred if preferred in moves else moves[0], random.Random(0))
    return run


def test_the_tightest_bound_does_not_deadlock_by_rounding():
    # A batch is worth 7/3 samples, which no float is; the bound is the least that is accepted.
    schedule = Schedule(1, 12, 3, 1, steps_per_round=7, final_steps=0, snapshot_steps=7, draw=1)
    run = greedy(Run(schedule, SamplesPerInsert(schedule, 2.0), generators=1, block_steps=1), "finish")
    assert run.learned and run.made, f"stuck with {len(run.held)} batches at step {run.trained}"


def test_the_last_batches_are_made_where_steps_per_round_were_rounded_down():
    # A round's batch is worth 1.4 steps, which makes 1 step: after 8 rounds the student has drawn 8 of 11.2.
    config = DistillConfig(
        synthesis={"method": "deep_inversion", "batch_size": 7},
        student={"batch_size": 5},
        buffer={"samples_per_insert": 1, "block_steps": 1},
        rounds={"initial_batches": 1, "count": 8, "batches": 1, "final_steps": 0},
    )
    run = greedy(Setting(config, 1).begin(generators=1), "finish")
    assert run.learned and run.made, f"step {run.trained} of {run.schedule.total_steps}, never made: {run.pending}"


def test_lockstep_goes_on_where_a_block_of_steps_would_cross_the_end_of_a_round():
    config = DistillConfig(
        synthesis={"method": "deep_inversion", "batch_size": 8},
        student={"batch_size": 8},
        buffer={"samples_per_insert": 1, "block_steps": 2},
        rounds={"initial_batches": 1, "count": 1, "batches": 1, "final_steps": 1, "lockstep": True},
    )
    run = greedy(Setting(config, 1).begin(generators=1), "finish")
    assert isinstance(run.limiter, Lockstep)
    assert run.learned, f"stuck before step {run.block_end}, with {run.complete_rounds} complete rounds"
