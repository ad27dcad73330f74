import math

import pytest

from raydream.search.candidates import TPE, grid, make_sampler, random_points
from raydream.search.space import Dimension, Space

SPACE = Space(
    (
        Dimension("rate", "log_uniform", (1e-4, 1.0), False),
        Dimension("jitter", "uniform", (0, 3), True),
        Dimension("start", "choice", ("noise", "images"), False),
    ),
    {},
)
LISTS = Space((Dimension("a", "grid", (1, 2), True), Dimension("b", "choice", ("x", "y", "z"), False)), {})


def worth(point: dict) -> float:
    """Best at rate 1e-3, jitter 2, start images."""
    return -abs(math.log10(point["rate"]) + 3) - abs(point["jitter"] - 2) - (point["start"] == "noise")


def test_a_grid_has_all_points_once_the_last_setting_first():
    points = grid(LISTS, 6).points
    assert points[:4] == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 1, "b": "z"}, {"a": 2, "b": "x"}]
    assert len({tuple(point.items()) for point in points}) == LISTS.grid_size == 6


def test_random_points_can_be_repeated_and_a_longer_list_goes_on():
    some, more = random_points(SPACE, 5, 1).points, random_points(SPACE, 50, 1).points
    assert more[:5] == some
    assert random_points(SPACE, 5, 2).points != some and random_points(SPACE, 5, 1, "exam").points != some
    assert all(1e-4 <= point["rate"] <= 1.0 for point in more)
    assert {point["jitter"] for point in more} == {0, 1, 2, 3} and {point["start"] for point in more} == {
        "noise",
        "images",
    }
    assert 0.2 < sum(point["rate"] < 1e-2 for point in more) / 50 < 0.8  # even on the logarithmic scale


def best_of(sampler, trials: int) -> float:
    scores = []
    for trial in range(trials):
        point = sampler.ask(trial)
        scores.append(worth(point))
        sampler.tell(trial, point, [scores[-1] - 1.0, scores[-1]], done=True)
    return max(scores)


def test_tpe_finds_better_points_than_chance():
    chance = [max(worth(point) for point in random_points(SPACE, 40, seed).points) for seed in range(5)]
    learned = [best_of(TPE(SPACE, 40, seed), 40) for seed in range(5)]
    assert sum(learned) > sum(chance)


def test_tpe_begins_with_the_points_of_chance_and_asks_for_values_in_range():
    sampler = TPE(SPACE, 20, 3)
    points = [sampler.ask(trial) for trial in range(20)]  # 20 under way at once
    assert points[:10] == random_points(SPACE, 10, 3).points
    assert all(1e-4 <= point["rate"] <= 1.0 and point["jitter"] in range(4) for point in points)


def test_what_an_earlier_session_found_is_learned_from():
    points = random_points(SPACE, 60, 0).points

    def told(sampler: TPE) -> TPE:
        for trial, point in enumerate(points):
            sampler.tell(trial, point, [worth(point)], done=True)
        return sampler

    def near(sampler: TPE) -> float:
        return sum(worth(sampler.ask(trial)) for trial in range(60, 80)) / 20

    assert near(told(TPE(SPACE, 100, 0))) > near(TPE(SPACE, 100, 0)) + 0.3


def ended(trial: int, point: dict) -> tuple[list[float], bool]:
    """How a trial ends: every fifth fails, every third is stopped before its end."""
    scores = [worth(point) - 1.0, worth(point)]
    return ([], False) if trial % 5 == 4 else (scores[:1], False) if trial % 3 == 2 else (scores, True)


@pytest.mark.parametrize("resumed", [4, 10, 13, 19])
def test_trials_one_after_another_have_the_same_points_after_a_resume(resumed):
    whole, points = TPE(SPACE, 25, 3), []
    for trial in range(25):
        points.append(whole.ask(trial))
        whole.tell(trial, points[-1], *ended(trial, points[-1]))
    again = TPE(SPACE, 25, 3)
    for trial, point in enumerate(points[:resumed]):
        again.tell(trial, point, *ended(trial, point))
    for trial in range(resumed, 25):
        assert again.ask(trial) == points[trial], trial
        again.tell(trial, points[trial], *ended(trial, points[trial]))
    other = TPE(SPACE, 25, 4)
    for trial, point in enumerate(points[:20]):
        other.tell(trial, point, *ended(trial, point))
    assert other.ask(20) != points[20], "the seed decides"


def test_failed_and_stopped_trials_do_no_harm():
    sampler = TPE(SPACE, 40, 0)
    for trial in range(30):
        point = sampler.ask(trial)
        if trial % 3 == 0:
            sampler.tell(trial, point, [], done=False)
        elif trial % 3 == 1:
            sampler.tell(trial, point, [worth(point)], done=False)
        else:
            sampler.tell(trial, point, [worth(point), worth(point)], done=True)
    sampler.tell(39, random_points(SPACE, 1, 9).points[0], [], done=False)  # an earlier session's failure
    assert 1e-4 <= sampler.ask(30)["rate"] <= 1.0


@pytest.mark.parametrize(("searcher", "space"), [("grid", LISTS), ("random", SPACE), ("tpe", SPACE)])
def test_every_searcher_of_the_configuration_is_there(searcher, space):
    assert set(make_sampler(searcher, space, 6, 0).ask(0)) == {each.name for each in space.dimensions}
