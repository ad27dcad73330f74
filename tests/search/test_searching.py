"""The benchmark of searches: its interval is by a bootstrap that is stratified by search."""

import numpy as np
import pytest

from benchmarks import searching


def of_search(count: int, first: float) -> tuple[np.ndarray, np.ndarray]:
    """Ranks that no other search has, and the real accuracies that belong to them."""
    ranks = first + np.arange(count)
    return ranks, ranks + 1000


def test_each_search_keeps_its_number_of_trials_and_each_trial_its_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = of_search(3, 0.0), of_search(40, 100.0)
    drawn: list[tuple[np.ndarray, np.ndarray]] = []

    def mean_rank(ranks: np.ndarray, real: np.ndarray) -> float:
        drawn.append((ranks, real))
        return float(ranks.mean())

    monkeypatch.setattr(searching, "_correlation", mean_rank)
    monkeypatch.setattr(searching, "RESAMPLES", 200)
    interval = searching._interval([small, large])
    assert len(drawn) == 200
    for ranks, real in drawn:
        assert len(ranks) == 43 and np.isin(ranks[:3], small[0]).all() and np.isin(ranks[3:], large[0]).all()
        assert (real == ranks + 1000).all()
    assert len({tuple(ranks) for ranks, _ in drawn}) > 190, "with replacement, each time again"
    assert interval == pytest.approx(np.percentile([ranks.mean() for ranks, _ in drawn], [2.5, 97.5]))


def test_the_interval_of_a_perfect_order_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "RESAMPLES", 50)
    assert searching._interval([of_search(4, 0.0), of_search(9, 100.0)]) == pytest.approx([1.0, 1.0])
