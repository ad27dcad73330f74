"""What is left of curves and bars that are too many to be told apart."""

import numpy as np
import pandas as pd
import pytest

from raydream.reporting.thinning import joined_bars, thinned_curve


def curve(count: int) -> pd.DataFrame:
    return pd.DataFrame({"step": np.arange(count, dtype=float), "value": np.random.default_rng(0).normal(size=count)})


@pytest.mark.parametrize("count", [0, 1, 2, 99, 100])
def test_a_short_curve_stays_as_it_is(count: int) -> None:
    assert thinned_curve(curve(count), 100).equals(curve(count))


@pytest.mark.parametrize("count", [101, 150, 1000, 12345])
def test_the_lowest_and_the_highest_points_stay_in_order(count: int) -> None:
    rows = curve(count)
    rows.loc[[7, count // 2], "value"] = 9.0, -9.0
    shown = thinned_curve(rows, 100)
    assert 50 < len(shown) <= 100 and shown["step"].is_monotonic_increasing
    assert shown["value"].max() == 9.0 and shown["value"].min() == -9.0
    assert shown.equals(rows.loc[shown.index])
    assert shown["step"].max() >= count - 1 - count / 50


def test_a_steady_curve_keeps_its_ends_and_infinite_values_stay() -> None:
    rows = pd.DataFrame({"step": np.arange(1000.0), "value": np.arange(1000.0)})
    assert thinned_curve(rows, 10)["step"].iloc[[0, -1]].tolist() == [0.0, 999.0]
    rows.loc[500, "value"] = np.inf
    assert np.inf in set(thinned_curve(rows, 10)["value"])


def bars(times: list[float], seconds: float) -> pd.DataFrame:
    return pd.DataFrame({"time_s": times, "duration_s": seconds, "round": np.arange(len(times))})


def test_few_bars_stay_as_they_are_in_the_order_of_time() -> None:
    rows = bars([4.0, 0.0, 2.0], 1.0)
    assert joined_bars(rows, 5.0, 3).equals(rows.iloc[[1, 2, 0]])


def test_bars_that_begin_in_one_stretch_are_joined_and_pauses_between_stretches_stay() -> None:
    # Stretches of 10 s: three bars, none, one, and one that reaches beyond its stretch.
    shown = joined_bars(bars([1.0, 3.0, 9.0, 25.0, 31.0], 2.0), 40.0, 4)
    assert shown["time_s"].tolist() == [1.0, 25.0, 31.0] and shown["duration_s"].tolist() == [10.0, 2.0, 2.0]
    assert shown["round"].tolist() == [0, 3, 4]


def test_time_that_is_covered_is_covered_still() -> None:
    random = np.random.default_rng(1)
    rows = bars(np.sort(random.uniform(0, 100, 500)).tolist(), 0.5)
    shown = joined_bars(rows, 101.0, 50)
    assert len(shown) <= 50
    for start in rows["time_s"]:
        assert ((shown["time_s"] <= start) & (shown["time_s"] + shown["duration_s"] >= start + 0.5 - 1e-9)).any()


@pytest.mark.parametrize("length_s", [0.0, 1e-300])
def test_bars_of_a_run_that_took_no_time_are_one(length_s: float) -> None:
    assert len(joined_bars(bars([0.0] * 10, 0.0), length_s, 4)) == 1
