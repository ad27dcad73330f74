import math

import numpy as np
import pytest

from raydream.config import TargetsConfig
from raydream.errors import InputError
from raydream.targets import check_targets, choose_targets

RANDOM = TargetsConfig(rule="random")
WEIGHTED = TargetsConfig(rule="weighted", weights=(3.0, 0.0, 1.0, 0.5, 0.0))
LISTED = TargetsConfig(rule="listed", classes=(7, 2, 2, 0))


def run(config: TargetsConfig, classes: int, batches: list[int], seed: int = 0) -> list[int]:
    """The targets of a run whose batches have these sizes."""
    starts = [sum(batches[:index]) for index in range(len(batches))]
    chosen = [choose_targets(config, classes, first, n, seed) for first, n in zip(starts, batches, strict=True)]
    return np.concatenate(chosen).tolist()


@pytest.mark.parametrize("config", [TargetsConfig(), RANDOM, WEIGHTED, LISTED], ids=lambda config: config.rule)
def test_targets_are_class_indices_one_per_image(config):
    classes = 5 if config is WEIGHTED else 10
    for count in (1, 7, 64):
        targets = choose_targets(config, classes, 3, count, 0)
        assert targets.dtype == np.int64 and targets.shape == (count,)
        assert targets.min() >= 0 and targets.max() < classes


@pytest.mark.parametrize("batches", [[10, 10], [3, 4, 5, 1, 7], [1] * 20, [23]])
def test_balanced_targets_go_on_from_batch_to_batch(batches):
    found = run(TargetsConfig(), 10, batches)
    assert found == [index % 10 for index in range(sum(batches))]


@pytest.mark.parametrize("batches", [[4, 4], [3, 3, 3, 3], [1] * 9, [17]])
def test_listed_targets_come_in_turn_and_go_on_from_batch_to_batch(batches):
    found = run(LISTED, 10, batches)
    assert found == ([7, 2, 2, 0] * 5)[: sum(batches)]


@pytest.mark.parametrize("config", [TargetsConfig(), LISTED], ids=lambda config: config.rule)
def test_targets_in_turn_do_not_depend_on_the_seed(config):
    assert run(config, 10, [5, 5], seed=1) == run(config, 10, [5, 5], seed=2)


@pytest.mark.parametrize("config", [RANDOM, WEIGHTED], ids=lambda config: config.rule)
def test_drawn_targets_depend_on_the_seed_and_the_place_alone(config):
    def chosen(first: int, seed: int) -> list[int]:
        return choose_targets(config, 5, first, 40, seed).tolist()

    np.random.seed(1)
    drawn = chosen(80, 3)
    np.random.seed(2)
    chosen(0, 3)  # drawing another batch in between changes nothing
    assert chosen(80, 3) == drawn
    assert chosen(120, 3) != drawn and chosen(80, 4) != drawn


def within_chance(count: int, draws: int, share: float) -> bool:
    """Whether a count is within five standard deviations of a binomial's mean."""
    return abs(count - draws * share) <= 5.0 * math.sqrt(draws * share * (1.0 - share))


@pytest.mark.parametrize(
    ("config", "shares"),
    [(RANDOM, [0.2] * 5), (WEIGHTED, [3 / 4.5, 0.0, 1 / 4.5, 0.5 / 4.5, 0.0])],
    ids=["random", "weighted"],
)
def test_drawn_targets_have_the_shares_that_were_asked_for(config, shares):
    counts = np.bincount(run(config, 5, [50] * 200, seed=11), minlength=5)
    assert all(within_chance(count, 10_000, share) for count, share in zip(counts, shares, strict=True)), counts


def test_drawn_targets_of_two_batches_have_nothing_to_do_with_each_other():
    first, second = (choose_targets(RANDOM, 5, place, 10_000, 0) for place in (0, 10_000))
    assert within_chance(int((first == second).sum()), 10_000, 0.2)


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1e-300), (0.0, 1.0, 0.0), (5.0, 0.0, 0.0), (0.0, 1e-9, 1e9)])
def test_classes_without_weight_never_come(weights):
    config = TargetsConfig(rule="weighted", weights=weights)
    seen = set(run(config, 3, [1000] * 5))
    assert seen and all(weights[target] > 0 for target in seen)


def test_weights_are_relative_to_each_other():
    small, large = (TargetsConfig(rule="weighted", weights=(a, 2 * a)) for a in (0.25, 1024.0))
    assert run(small, 2, [100]) == run(large, 2, [100])


@pytest.mark.parametrize(
    ("config", "classes"),
    [(TargetsConfig(), 2), (RANDOM, 2), (LISTED, 8), (WEIGHTED, 5)],
    ids=["balanced", "random", "listed", "weighted"],
)
def test_targets_of_classes_that_there_are_pass_the_check(config, classes):
    check_targets(config, classes)


@pytest.mark.parametrize(
    ("config", "classes", "field", "told"),
    [
        (LISTED, 7, "synthesis.targets.classes", "from 0 to 6"),
        (TargetsConfig(rule="listed", classes=(10,)), 10, "synthesis.targets.classes", "from 0 to 9"),
        (WEIGHTED, 4, "synthesis.targets.weights", "4 numbers"),
        (WEIGHTED, 6, "synthesis.targets.weights", "6 numbers"),
    ],
)
def test_targets_of_other_classes_are_refused_by_their_field(config, classes, field, told):
    with pytest.raises(InputError, match=told) as refused:
        check_targets(config, classes)
    assert refused.value.field == field and refused.value.remedy
