from dataclasses import replace

import pytest

from raydream.config import SearchConfig
from raydream.errors import InputError
from raydream.search.space import Dimension, config_at, full_scale, settings_at, space_of

LEARNING_RATE = {"synthesis.learning_rate": {"log_uniform": [1.0e-3, 1.0]}}


def config(search: object = None, scale: object = None, **changes: object) -> SearchConfig:
    described = {"search": LEARNING_RATE if search is None else search}
    return SearchConfig(space=described if scale is None else described | {"scale": scale}, **changes)


def test_a_space_reads_its_settings_in_order_and_knows_which_are_integers():
    space = space_of(config({"synthesis.jitter": {"uniform": [0, 4]}, **LEARNING_RATE, "seed": {"grid": [3, 1]}}))
    assert [each.name for each in space.dimensions] == ["synthesis.jitter", "synthesis.learning_rate", "seed"]
    assert [each.whole for each in space.dimensions] == [True, False, True]


BAD = [
    ({}, "space.search"),
    ([], "space.search"),
    ({"synthesis.coefficients.tw": {"choice": [1]}}, "did you mean synthesis.coefficients.tv"),
    ({"teacher.classes": {"choice": [10]}}, "a setting of synthesis, student"),
    ({"synthesis.jitter": [0, 1]}, "one of log_uniform, uniform, choice, grid"),
    ({"synthesis.jitter": {"normal": [0, 1]}}, "one of log_uniform"),
    ({"synthesis.jitter": {"choice": []}}, "at least one"),
    ({"synthesis.jitter": {"choice": [1, 1]}}, "come twice"),
    ({"synthesis.jitter": {"choice": ["many"]}}, "synthesis.jitter"),
    ({"synthesis.jitter": {"uniform": [-1, 2]}}, "greater than or equal to 0"),
    ({"synthesis.learning_rate": {"uniform": [1.0, 1.0]}}, "the lower one first"),
    ({"synthesis.learning_rate": {"uniform": [2.0, 1.0]}}, "the lower one first"),
    ({"synthesis.learning_rate": {"uniform": [0.1, float("inf")]}}, "the lower one first"),
    ({"synthesis.learning_rate": {"uniform": ["1e-3", 1.0]}}, "write 1.0e-3"),
    ({"synthesis.learning_rate": {"uniform": [0.1, 0.2, 0.3]}}, "two numbers"),
    ({"synthesis.coefficients.tv": {"log_uniform": [0.0, 1.0]}}, "no logarithm"),
    ({"synthesis.coefficients.tv": {"log_uniform": [-1.0, 1.0]}}, "no logarithm"),
    ({"synthesis.learning_rate": {"uniform": [0.0, 1.0]}}, "greater than 0"),
    ({"synthesis.coefficients.tv": {"choice": [0.1, "auto"]}}, "a number in a space"),
    ({"student.workers": {"choice": [1, 7]}}, "a divisor of student.batch_size"),
]


@pytest.mark.parametrize(("search", "told"), BAD, ids=[str(search)[:60] for search, _ in BAD])
def test_a_space_that_cannot_be_searched_is_refused_in_one_sentence(search, told):
    with pytest.raises(InputError, match="space") as refused:
        space_of(config(search))
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        ("small", "settings"),
        ({"synthesis": {"iterations": 0}}, "space.scale"),
        ({"rounds": {"many": 1}}, "known setting"),
        ({"synthesis": {"coefficients": {"feature": "auto"}}}, "a number in a space"),
    ],
)
def test_a_scale_that_is_no_configuration_is_refused(scale, told):
    with pytest.raises(InputError, match=told):
        space_of(config(scale=scale))


def test_another_key_of_a_space_is_refused():
    with pytest.raises(InputError, match=r"space\.serach"):
        space_of(SearchConfig(space={"serach": LEARNING_RATE}))


@pytest.mark.parametrize(
    "dimension",
    [
        Dimension("a", "log_uniform", (1e-3, 10.0), False),
        Dimension("a", "uniform", (-2.0, 10.0), False),
        Dimension("a", "choice", ("x", "y", "z"), False),
        Dimension("a", "grid", (5,), True),
    ],
)
def test_a_share_of_the_way_and_back(dimension):
    assert dimension.at(0.0) == pytest.approx(dimension.values[0]) if dimension.is_range else dimension.values[0]
    assert dimension.at(1.0) == dimension.values[-1]
    for share in (0.0, 0.2, 0.7, 1.0):
        value = dimension.at(share)
        assert dimension.at(dimension.share_of(value)) == pytest.approx(value) if dimension.is_range else value


def test_half_of_a_logarithmic_range_is_its_geometric_mean():
    assert Dimension("a", "log_uniform", (1e-4, 1.0), False).at(0.5) == pytest.approx(1e-2)


def test_whole_numbers_between_two_bounds_come_equally_often():
    dimension = Dimension("a", "uniform", (2, 5), True)
    values = [dimension.at(share / 1000) for share in range(1000)]
    assert {value: values.count(value) for value in set(values)} == {2: 250, 3: 250, 4: 250, 5: 250}
    assert all(isinstance(value, int) for value in values)


def test_a_trial_differs_by_scale_and_point_and_the_outcome_by_the_point_alone():
    searched = config(scale={"rounds": {"count": 1, "final_steps": 7}, "synthesis": {"iterations": 5}}, seed=4)
    space, point = space_of(searched), {"synthesis.learning_rate": 0.3}
    trial, whole = config_at(searched, space, point), full_scale(searched, point)
    assert trial.rounds.count == 1 and trial.rounds.batches == searched.rounds.batches
    assert (trial.synthesis.iterations, trial.synthesis.learning_rate, trial.seed) == (5, 0.3, 4)
    assert whole == replace(whole, synthesis=replace(whole.synthesis, learning_rate=0.3))
    assert whole.rounds == searched.rounds and whole.synthesis.iterations == searched.synthesis.iterations


def test_settings_are_changed_in_a_copy():
    settings = {"a": {"b": 1, "c": 2}, "d": 3}
    assert settings_at(settings, {"a.b": 5, "d": 6}) == {"a": {"b": 5, "c": 2}, "d": 6}
    assert settings == {"a": {"b": 1, "c": 2}, "d": 3}
