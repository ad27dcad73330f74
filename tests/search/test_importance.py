import math

from raydream.search.candidates import random_points
from raydream.search.importance import FEWEST, importances
from raydream.search.space import Dimension, Space
from raydream.search.trials import Trials

SPACE = Space(
    (Dimension("rate", "log_uniform", (1e-4, 1.0), False), Dimension("idle", "choice", ("a", "b", "c"), False)), {}
)


def noted(path, count: int) -> Trials:
    trials = Trials(path)
    for number, point in enumerate(random_points(SPACE, count, 0).points):
        trials.begin(number, point)
        for report in range(1 + number % 3):  # a third are stopped after each report
            score = -abs(math.log10(point["rate"]) + 2) + report
            trials.report(number, report, {"accuracy": score, "updates": 1, "seconds": 1.0})
        trials.end(number, "done" if number % 3 == 2 else "stopped")
    return trials


def test_the_setting_that_matters_is_told_from_one_that_does_not(tmp_path):
    shares, report, compared = importances(SPACE, noted(tmp_path / "a.jsonl", 60), "accuracy")
    assert list(shares) == ["rate", "idle"] and shares["rate"] > 0.8 > 0.2 > shares["idle"]
    assert (report, compared) == (2, 40)  # at the budget that half of the trials got


def test_nothing_is_said_of_few_trials(tmp_path):
    assert importances(SPACE, noted(tmp_path / "a.jsonl", FEWEST - 1), "accuracy")[0] == {}
    assert importances(SPACE, Trials(tmp_path / "b.jsonl"), "accuracy") == ({}, 0, 0)
