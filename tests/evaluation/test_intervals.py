"""Figures over seeds."""

import math

import pytest

from raydream.evaluation.intervals import half_width, summarize


@pytest.mark.parametrize(("count", "t"), [(2, 12.7062), (3, 4.30265), (8, 2.36462)])
def test_half_of_the_interval_is_that_of_students_t_from_tables(count, t):
    assert half_width(2.0, count) == pytest.approx(t * 2 / math.sqrt(count), rel=1e-5)


def test_a_summary_has_mean_interval_and_values():
    told = summarize([1.0, 2.0, 3.0])
    assert told == {"mean": 2.0, "interval": half_width(1.0, 3), "values": [1.0, 2.0, 3.0]}
    assert math.isnan(summarize([1.0])["interval"])
