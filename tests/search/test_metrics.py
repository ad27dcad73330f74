import pytest

from raydream.config import SearchConfig
from raydream.errors import InputError
from raydream.search.metrics import BEST_DATA_FREE, MEASURES, check_metrics, measured, metric_of, score_of

SPACE = {"search": {"synthesis.jitter": {"choice": [0, 1]}}}
ALONE = {"data": {"name": "none"}, "teacher": {"checkpoint": "somewhere"}}
VERIFIERS = {"verifiers": ({"network": "digits"},)}
IMAGES = {"images_only": True, "synthesis": {"method": "deep_inversion"}}


def config(**changes: object) -> SearchConfig:
    return SearchConfig(space=SPACE, **changes)


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({}, "accuracy"),
        ({"metric": "diversity"}, "diversity"),
        (ALONE, BEST_DATA_FREE),
        (IMAGES, "feature_distance"),
        (IMAGES | VERIFIERS, "feature_distance"),
    ],
)
def test_without_a_word_a_search_is_judged_by_the_best_that_there_is(changes, metric):
    assert metric_of(config(**changes)) == metric
    check_metrics(config(**changes))
    assert metric in measured(config(**changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({**ALONE, "metric": "accuracy"}, "data-free metric"),
        ({**ALONE, "also": ("accuracy",)}, "data-free metric"),
        ({"metric": "verifier_agreement"}, "--verifiers"),
        ({"also": ("verifier_agreement",)}, "--verifiers"),
        ({**IMAGES, "metric": "accuracy"}, "images_only"),
        ({**IMAGES, "also": ("exam_agreement",)}, "images_only"),
    ],
)
def test_a_metric_without_what_it_needs_is_refused(changes, told):
    with pytest.raises(InputError, match=told):
        check_metrics(config(**changes))


def test_measured_is_what_costs_nothing_and_what_is_asked_for():
    free = {"target_share", "feature_distance", "diversity", "accuracy"}
    assert measured(config()) == free
    assert measured(config(also=("own_agreement",), **VERIFIERS)) == free | {"own_agreement", "verifier_agreement"}
    assert measured(config(**ALONE)) == free - {"accuracy"} | {BEST_DATA_FREE}


def test_a_score_is_the_better_the_higher():
    assert (
        score_of("accuracy", {"accuracy": 0.7}) == 0.7
        and score_of("feature_distance", {"feature_distance": 3.0}) == -3.0
    )
    assert set(MEASURES) | {"auto"} == set(SearchConfig.__dataclass_fields__["metric"].type.__args__)
