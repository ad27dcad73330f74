"""Which settings a limiter accepts, and its decisions one by one; test_limiter_simulation.py lets it run."""

import pytest

from raydream.buffer.limiter import Lockstep, Progress, SamplesPerInsert, first_snapshot, make_limiter, opponent
from raydream.config import DistillConfig
from raydream.errors import InputError
from raydream.schedule import Schedule
from raydream.store.records import BatchId


def config_of(**changes: object) -> DistillConfig:
    """8 images a batch and a step, 2 batches a round, 5 samples per insert: 10 steps a round; draws of 5 steps."""
    settings: dict = {
        "synthesis": {"method": "deep_inversion", "batch_size": 8},
        "student": {"batch_size": 8},
        "buffer": {"samples_per_insert": 5, "block_steps": 5},
        "rounds": {"initial_batches": 2, "count": 4, "batches": 2, "final_steps": 10},
    }
    for field, value in changes.items():
        component, name = field.split("__")
        settings[component][name] = value
    return DistillConfig(**settings)


def limiter_of(settle_steps: int = 44, **changes: object):
    config = config_of(**changes)
    return make_limiter(config, Schedule.of(config), settle_steps)


ADAPTIVE = {"synthesis__method": "adaptive"}
SETTINGS = [
    # field told, settings at the boundary, settings beyond it
    ("buffer.error_bound", {"buffer__error_bound": 40}, {"buffer__error_bound": 39.9}),
    (
        "buffer.error_bound",  # a batch is worth 160 samples, a draw 40
        {"buffer__samples_per_insert": 20, "buffer__error_bound": 100},
        {"buffer__samples_per_insert": 20, "buffer__error_bound": 99.9},
    ),
    (
        "buffer.error_bound",  # a draw of 20 steps takes 160 samples
        {"buffer__block_steps": 20, "buffer__error_bound": 160},
        {"buffer__block_steps": 20, "buffer__error_bound": 159.9},
    ),
    (
        "buffer.error_bound",  # statistics settle at 44, the next snapshot comes at 50, and a draw of 5 may end at 54
        {**ADAPTIVE, "rounds__count": 5, "buffer__error_bound": 440},
        {**ADAPTIVE, "rounds__count": 5, "buffer__error_bound": 439.9},
    ),
    # The final steps wait for the last batch, so the first snapshot at 50 must come before them.
    ("rounds.count", {**ADAPTIVE, "rounds__count": 5}, {**ADAPTIVE, "rounds__count": 4, "rounds__final_steps": 99}),
    (
        "buffer.samples_per_insert",  # 44 steps a round
        {**ADAPTIVE, "rounds__lockstep": True, "buffer__samples_per_insert": 22, "buffer__block_steps": 1},
        {**ADAPTIVE, "rounds__lockstep": True, "buffer__samples_per_insert": 21.5, "buffer__block_steps": 1},
    ),
]


@pytest.mark.parametrize(("field", "allowed", "refused"), SETTINGS)
def test_settings_are_accepted_up_to_the_boundary_and_refused_beyond(field, allowed, refused):
    limiter_of(**allowed)
    with pytest.raises(InputError) as error:
        limiter_of(**refused)
    assert error.value.field == field and field in str(error.value)
    assert error.value.allowed and error.value.remedy


@pytest.mark.parametrize(
    "settings",
    [
        {"rounds__count": 0, "buffer__error_bound": 0.001},  # nobody inserts while somebody draws
        {"rounds__count": 0, **ADAPTIVE},
        {"rounds__count": 1, "rounds__lockstep": True},  # nobody competes
        {"synthesis__coefficients": {"competition": 0.0}, **ADAPTIVE, "rounds__count": 1},
        {"rounds__lockstep": True, "buffer__error_bound": 0.001},  # ignored in lockstep
    ],
)
def test_what_does_not_matter_is_not_checked(settings):
    limiter_of(**settings)


def test_the_bound_that_the_error_names_is_accepted():
    # 5 steps of 3 images against batches worth 50.6667 samples: no round number.
    with pytest.raises(InputError) as error:
        limiter_of(student__batch_size=3, buffer__samples_per_insert=6.0 + 1 / 3, buffer__error_bound=0.1)
    told = error.value.allowed.split()[1]
    limiter_of(student__batch_size=3, buffer__samples_per_insert=6.0 + 1 / 3, buffer__error_bound=float(told))


def test_the_configuration_chooses_the_limiter():
    assert isinstance(limiter_of(), SamplesPerInsert)
    assert isinstance(limiter_of(rounds__lockstep=True), Lockstep)


@pytest.mark.parametrize(
    ("settle", "snapshot_steps", "first"),
    [(1, 10, 10), (10, 10, 10), (11, 10, 20), (44, 7, 49), (45, 7, 49), (50, 7, 50)],
)
def test_the_first_snapshot_that_may_compete_is_the_next_one_after_settling(settle, snapshot_steps, first):
    schedule = Schedule(2, 4, 2, 8, 10, 10, snapshot_steps, 8)
    assert first_snapshot(schedule, settle) == first


def schedule_of(**changes: int) -> Schedule:
    counts = {"initial_batches": 2, "rounds": 4, "batches_per_round": 2, "batch_images": 8, "steps_per_round": 10}
    return Schedule(**{**counts, "final_steps": 10, "snapshot_steps": 10, "draw": 8, **changes})


def test_nothing_is_drawn_before_the_minimum_fill():
    limiter = SamplesPerInsert(schedule_of(), 80.0)
    assert [limiter.may_draw(1, Progress(held=held)) for held in range(4)] == [False, False, True, True]


def test_drawing_stops_at_the_lower_bound():
    limiter = SamplesPerInsert(schedule_of(), 80.0)  # 10 steps of 8 images
    may_draw = [limiter.may_draw(end, Progress(held=2)) for end in (1, 10, 11)]
    assert may_draw == [True, True, False]
    assert limiter.may_draw(15, Progress(held=3, drawn_steps=10))  # a batch is worth 5 steps
    assert not limiter.may_draw(16, Progress(held=3, drawn_steps=10))


def test_a_step_that_was_drawn_before_may_be_drawn_again():
    limiter = SamplesPerInsert(schedule_of(), 80.0)
    assert limiter.may_draw(4, Progress(held=2, drawn_steps=10))


def test_inserting_stops_at_the_upper_bound_and_counts_what_is_in_flight():
    limiter, batch = SamplesPerInsert(schedule_of(), 80.0), BatchId(1, 0)
    # Two batches beyond the minimum fill are worth 80 samples.
    assert limiter.may_start(batch, Progress(held=3)) and not limiter.may_start(batch, Progress(held=4))
    assert limiter.may_start(batch, Progress(held=2, in_flight=1))
    assert not limiter.may_start(batch, Progress(held=2, in_flight=2))
    assert limiter.may_start(batch, Progress(held=4, drawn_steps=5))


def test_initial_batches_are_made_whatever_the_bound():
    limiter = SamplesPerInsert(schedule_of(initial_batches=100), 40.0)
    assert limiter.may_start(BatchId(0, 99), Progress(held=50, in_flight=49))


def test_once_all_batches_have_joined_drawing_has_no_bound():
    limiter = SamplesPerInsert(schedule_of(), 80.0)
    assert limiter.may_draw(10**6, Progress(held=10)) and not limiter.may_draw(10**6, Progress(held=9))


def test_the_final_steps_wait_for_the_last_batch():
    limiter = SamplesPerInsert(schedule_of(), 800.0)  # a bound that alone would let everything through
    assert limiter.may_draw(40, Progress(held=9)) and not limiter.may_draw(41, Progress(held=9))
    assert limiter.may_draw(41, Progress(held=10))


def test_a_competition_waits_for_a_snapshot_and_the_initial_batches_do_not():
    limiter = SamplesPerInsert(schedule_of(), 400.0, first_snapshot=20, block_steps=1)
    assert limiter.may_start(BatchId(0, 1), Progress(held=1))
    assert not limiter.may_start(BatchId(1, 0), Progress(held=2, drawn_steps=20))
    assert limiter.may_start(BatchId(1, 0), Progress(held=2, drawn_steps=20, snapshot_step=20))


def test_without_lockstep_a_step_sees_whatever_is_held():
    assert SamplesPerInsert(schedule_of(), 80.0).visible_round(3) is None


def test_lockstep_makes_a_round_from_the_snapshot_at_its_very_beginning():
    limiter, batch = Lockstep(schedule_of()), BatchId(2, 0)
    assert limiter.may_start(BatchId(0, 1), Progress())
    assert limiter.may_start(batch, Progress(complete_rounds=2, snapshot_step=20))
    for other in ({"snapshot_step": 19}, {"snapshot_step": None}, {"complete_rounds": 1}):
        assert not limiter.may_start(batch, Progress(**{"complete_rounds": 2, "snapshot_step": 20, **other}))


def test_a_lockstep_batch_is_made_again_against_the_snapshot_of_its_round_however_far_the_student_is():
    limiter = Lockstep(schedule_of())
    assert limiter.may_start(BatchId(2, 0), Progress(complete_rounds=2, snapshot_step=50))
    assert [limiter.due(BatchId(round_index, 1)) for round_index in range(3)] == [None, 10, 20]
    assert SamplesPerInsert(schedule_of()).due(BatchId(2, 0)) is None


def test_lockstep_draws_only_from_complete_rounds():
    limiter = Lockstep(schedule_of())
    assert not limiter.may_draw(1, Progress(complete_rounds=0))
    assert limiter.may_draw(10, Progress(complete_rounds=1)) and not limiter.may_draw(11, Progress(complete_rounds=1))
    assert limiter.may_draw(50, Progress(complete_rounds=5)) and not limiter.may_draw(50, Progress(complete_rounds=4))
    assert [limiter.visible_round(step) for step in (0, 9, 10, 39, 40, 49)] == [0, 0, 1, 3, 4, 4]


def test_a_refused_draw_names_what_is_missing():
    assert SamplesPerInsert(schedule_of(), 80.0).missing(5, Progress()) == "batch 2 of 10 (the buffer holds 0)"
    assert SamplesPerInsert(schedule_of(), 80.0).missing(5, Progress(held=4)) == "batch 5 of 10 (the buffer holds 4)"
    assert "round 3" in Lockstep(schedule_of()).missing(31, Progress(complete_rounds=3))


def test_in_lockstep_a_batch_competes_with_its_own_rounds_snapshot_even_when_it_is_made_again_later() -> None:
    lockstep = limiter_of(rounds__lockstep=True)
    assert opponent(lockstep, BatchId(2, 1), newest=20) == 20
    assert opponent(lockstep, BatchId(2, 1), newest=40) == 20
    assert opponent(lockstep, BatchId(2, 1), newest=None) == 20  # a driver that resumes reads it from the disk
    assert opponent(lockstep, BatchId(0, 1), newest=40) is None


def test_otherwise_a_batch_competes_with_the_newest_snapshot() -> None:
    assert opponent(limiter_of(), BatchId(2, 1), newest=40) == 40
    assert opponent(limiter_of(), BatchId(2, 1), newest=None) is None
    assert opponent(limiter_of(), BatchId(0, 1), newest=40) is None


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_staleness_bound_of_so_many_rounds_lets_either_side_be_so_many_rounds_ahead(rounds: int) -> None:
    config = config_of()
    a_round = config.buffer.samples_per_insert * config.rounds.batches * config.synthesis.batch_size
    limiter, batch = limiter_of(buffer__error_bound=rounds * a_round), BatchId(rounds, 0)
    ahead = 2 + 2 * rounds  # the initial batches, and those of the rounds
    assert limiter.may_start(batch, Progress(held=ahead - 1)) and not limiter.may_start(batch, Progress(held=ahead))
    assert limiter.may_start(batch, Progress(held=ahead, drawn_steps=5)), "it continues as the student learns"
    assert limiter.may_draw(10 * rounds, Progress(held=2)) and not limiter.may_draw(10 * rounds + 1, Progress(held=2))
    assert limiter.may_draw(10 * rounds + 5, Progress(held=3)), "and the student with a batch"


def test_the_bound_is_one_round_where_none_is_set() -> None:
    unset, one = limiter_of(), limiter_of(buffer__error_bound=80)
    for held in range(2, 8):
        for drawn in range(0, 45, 5):
            progress = Progress(held=held, drawn_steps=drawn)
            assert unset.may_start(BatchId(1, 0), progress) == one.may_start(BatchId(1, 0), progress)
            assert unset.may_draw(drawn + 5, progress) == one.may_draw(drawn + 5, progress)
