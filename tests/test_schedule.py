from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydream.config import DistillConfig, SynthesizeConfig
from raydream.schedule import Epochs, Schedule, even_sizes
from raydream.store.records import BatchId
from raydream.synthesis.tasks import tasks_of

schedules = st.builds(
    Schedule,
    initial_batches=st.integers(1, 4),
    rounds=st.integers(0, 4),
    batches_per_round=st.integers(1, 4),
    batch_images=st.integers(1, 9),
    steps_per_round=st.integers(1, 6),
    final_steps=st.integers(0, 8),
    snapshot_steps=st.integers(1, 6),
    draw=st.integers(1, 9),
)


def config_of(ratio: float, made: int, batch_size: int, draw: int, **rounds: object) -> DistillConfig:
    return DistillConfig(
        synthesis={"batch_size": batch_size},
        student={"batch_size": draw},
        buffer={"samples_per_insert": ratio},
        rounds={"batches": made, **rounds},
    )


@pytest.mark.parametrize(
    ("ratio", "made", "batch_size", "draw", "steps"),
    [
        (50, 1, 256, 256, 50),  # the paper's: one batch of 256 per 50 steps of 256
        (50, 2, 256, 256, 100),
        (50, 1, 128, 256, 25),
        (0.001, 1, 8, 256, 1),
        (1.4, 1, 8, 8, 1),
        (1.6, 1, 8, 8, 2),
    ],
)
def test_steps_per_round_follow_from_the_samples_per_insert(ratio, made, batch_size, draw, steps):
    assert Schedule.of(config_of(ratio, made, batch_size, draw)).steps_per_round == steps


def test_the_schedule_takes_its_counts_from_the_configuration():
    config = config_of(2, 3, 16, 32, initial_batches=5, count=7, final_steps=11, snapshot_steps=2)
    assert Schedule.of(config) == Schedule(5, 7, 3, 16, 3, 11, 2, 32)


def test_without_a_number_of_its_own_there_is_one_snapshot_a_round():
    schedule = Schedule.of(config_of(5, 1, 8, 8))
    assert schedule.snapshot_steps == schedule.steps_per_round == 5


@given(schedules, st.integers(1, 12))
def test_a_batch_learns_on_after_the_one_so_many_chains_before_it(schedule, chains):
    config = DistillConfig(synthesis={"method": "fast", "generator": {"chains": chains}})
    batches = schedule.batch_ids()
    after = [schedule.order(batch, config).after for batch in batches]
    assert after == [*[None] * min(chains, len(batches)), *batches[:-chains]]


@given(schedules)
def test_a_position_names_its_batch(schedule):
    batches = schedule.batch_ids()
    assert [schedule.batch_at(schedule.position(batch)) for batch in batches] == batches


@pytest.mark.parametrize("chains", [1, 2, 5])
def test_the_batches_of_a_set_of_images_have_their_chains_too(chains):
    synthesis = {"method": "fast", "batch_size": 4, "generator": {"chains": chains}}
    tasks = tasks_of(SynthesizeConfig(images=16, synthesis=synthesis, teacher=DistillConfig().teacher))
    batches = [*tasks]
    assert [task.order.after for task in tasks.values()] == ([None] * chains + batches)[: len(batches)]


def test_batches_of_an_inversion_learn_after_nothing():
    schedule = Schedule.of(DistillConfig())
    assert {schedule.order(batch, DistillConfig()).after for batch in schedule.batch_ids()} == {None}


@given(schedules)
def test_batches_are_numbered_through_in_order(schedule):
    batches = schedule.batch_ids()
    assert batches == sorted(set(batches)) and len(batches) == schedule.total_batches
    assert [schedule.position(batch) for batch in batches] == list(range(len(batches)))
    assert [batch for r in range(schedule.rounds + 1) for batch in schedule.batches_of(r)] == batches
    for round_index in range(schedule.rounds + 2):
        assert schedule.batches_before_round(round_index) == sum(batch.round < round_index for batch in batches)


@given(schedules)
def test_each_round_has_its_steps_and_the_final_steps_see_all(schedule):
    seen = Counter(schedule.round_of_step(step) for step in range(schedule.total_steps))
    expected = Counter(dict.fromkeys(range(schedule.rounds), schedule.steps_per_round))
    expected[schedule.rounds] += schedule.final_steps
    assert seen == expected


@given(schedules)
def test_rounds_come_one_after_the_other(schedule):
    rounds = [schedule.round_of_step(step) for step in range(schedule.total_steps)]
    assert rounds == sorted(rounds) and (not rounds or rounds[0] == 0)


@given(schedules)
def test_every_round_ends_with_a_snapshot_and_so_does_the_run(schedule):
    for round_index in range(1, schedule.rounds + 1):
        steps = round_index * schedule.steps_per_round
        assert schedule.ends_round(steps) and schedule.is_snapshot(steps)
    assert schedule.ends_round(schedule.total_steps) and schedule.is_snapshot(schedule.total_steps)


def test_snapshots_come_at_their_steps_and_at_the_ends_of_rounds():
    schedule = Schedule(1, 2, 1, 8, steps_per_round=5, final_steps=7, snapshot_steps=3, draw=8)
    steps = range(1, schedule.total_steps + 1)
    assert [step for step in steps if schedule.is_snapshot(step)] == [3, 5, 6, 9, 10, 12, 15, 17]
    assert [step for step in steps if schedule.ends_round(step)] == [5, 10, 15, 17]


@given(schedules, st.integers(2, 11))
def test_targets_are_balanced_after_every_batch(schedule, classes):
    config = DistillConfig(teacher={"classes": classes})
    seen = np.zeros(classes, dtype=int)
    for batch in schedule.batch_ids():
        targets = schedule.order(batch, config).targets
        assert targets.dtype == np.int64 and len(targets) == schedule.batch_images
        seen += np.bincount(targets, minlength=classes)
        assert seen.max() - seen.min() <= 1


@given(schedules)
def test_listed_targets_come_in_turn_over_the_run(schedule):
    config = DistillConfig(synthesis={"targets": {"rule": "listed", "classes": (4, 1, 1)}})
    found = np.concatenate([schedule.order(batch, config).targets for batch in schedule.batch_ids()])
    assert found.tolist() == [(4, 1, 1)[index % 3] for index in range(len(found))]


@given(schedules, st.integers(0, 2**40))
def test_orders_name_their_batch_and_have_seeds_of_their_own(schedule, seed):
    config = DistillConfig(seed=seed)
    orders = [schedule.order(batch, config) for batch in schedule.batch_ids()]
    assert [order.batch for order in orders] == schedule.batch_ids()
    seeds = [order.seed for order in orders]
    assert len(set(seeds)) == len(seeds) and all(0 <= value < 2**63 for value in seeds)
    assert seeds == [schedule.order(batch, config).seed for batch in schedule.batch_ids()]
    others = {schedule.order(batch, replace(config, seed=seed + 1)).seed for batch in schedule.batch_ids()}
    assert not others & set(seeds)


def test_drawn_targets_differ_from_batch_to_batch_and_from_run_to_run():
    config = DistillConfig(synthesis={"batch_size": 40, "targets": {"rule": "random"}})
    schedule = Schedule.of(config)
    batches = schedule.batch_ids()[:5]
    runs = [replace(config, seed=seed) for seed in (0, 1)]
    drawn = {schedule.order(batch, run).targets.tobytes() for batch in batches for run in runs}
    assert len(drawn) == 10


def test_adaptive_batches_start_from_noise_or_from_initial_images():
    noise = config_of(2, 4, 8, 8, initial_batches=3, count=30)
    images = replace(noise, synthesis={"batch_size": 8, "start": "images"})
    schedule = Schedule.of(noise)
    later = [batch for batch in schedule.batch_ids() if batch.round > 0]
    assert {schedule.source_of(batch, noise) for batch in schedule.batch_ids()} == {None}
    assert {schedule.source_of(batch, images) for batch in schedule.batches_of(0)} == {None}
    sources = [schedule.source_of(batch, images) for batch in later]
    assert set(sources) == set(schedule.batches_of(0))
    assert sources == [schedule.source_of(batch, images) for batch in later]
    assert sources != [schedule.source_of(batch, replace(images, seed=1)) for batch in later]


def test_round_zero_is_the_initial_batches():
    schedule = Schedule(3, 2, 1, 8, 5, 0, 5, 8)
    assert schedule.batches_of(0) == [BatchId(0, 0), BatchId(0, 1), BatchId(0, 2)]
    assert schedule.batches_of(2) == [BatchId(2, 0)]


@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 5))
def test_steps_of_an_epoch_are_as_few_as_the_batch_size_allows(images, batch_size, count):
    epochs = Epochs(images, batch_size, count)
    sizes = even_sizes(images, epochs.steps)
    assert sum(sizes) == images and len(sizes) == epochs.steps and max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size and (epochs.steps - 1) * batch_size < images
    assert epochs.total_steps == count * epochs.steps
