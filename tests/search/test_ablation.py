import math

import pytest

from raydream.config import AblateConfig
from raydream.errors import InputError
from raydream.search.ablation import ablated_terms, ablation_table, search_of
from raydream.search.space import config_at, space_of
from raydream.search.trials import Trials

CONFIG = AblateConfig(
    seed=5, seeds=2, synthesis={"coefficients": {"tv": 0.1, "l2": 0.0, "feature": 1.0, "competition": 30.0}}
)


def test_the_grid_switches_each_term_that_is_in_the_objective():
    assert ablated_terms(CONFIG) == ["tv", "feature", "competition"]
    search = search_of(CONFIG)
    space = space_of(search)
    assert space.grid_size == 2**3 * 2 and space.scale == {}
    configs = [config_at(search, space, point) for point in space.grid()]
    seen = {
        (c.synthesis.coefficients.tv, c.synthesis.coefficients.feature, c.synthesis.competes, c.seed) for c in configs
    }
    assert len(seen) == 16 and {each[3] for each in seen} == {5, 6} and {each[0] for each in seen} == {0.0, 0.1}
    assert {c.rounds for c in configs} == {CONFIG.rounds}


def test_a_method_of_the_class_loss_alone_has_nothing_to_switch_off():
    with pytest.raises(InputError, match=r"synthesis\.method"):
        search_of(AblateConfig(synthesis={"method": "noise"}))


def test_the_table_has_means_and_spreads_over_seeds_and_leaves_out_what_failed(tmp_path):
    config = AblateConfig(seeds=3, synthesis={"method": "deepdream", "coefficients": {"tv": 0.1, "l2": 0.0}})
    trials, points = Trials(tmp_path / "trials.jsonl"), list(space_of(search_of(config)).grid())
    for number, (point, accuracy) in enumerate(zip(points, [0.1, 0.2, 0.3, 0.5, 0.7, None], strict=True)):
        trials.begin(number, point)
        if accuracy is None:
            trials.end(number, "failed", "NaN")
            continue
        trials.report(number, 0, {"accuracy": 0.0, "updates": 1, "seconds": 1.0})
        trials.report(number, 1, {"accuracy": accuracy, "updates": 2, "seconds": 2.0})
        trials.end(number, "done")
    table = ablation_table(config, trials, "accuracy")
    assert table["tv"].tolist() == [True, False] and table["seeds"].tolist() == [2, 3]  # the best first
    assert table["accuracy_mean"].tolist() == pytest.approx([0.6, 0.2])
    assert table["accuracy_spread"].tolist() == pytest.approx([math.sqrt(0.02), 0.1])
