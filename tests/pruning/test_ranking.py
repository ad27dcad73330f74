"""Which channels go next, decided from numbers alone."""

from dataclasses import replace

import pytest
import torch

from raydream.evaluation.latency import Latency
from raydream.pruning.ranking import Rule, choose_channels, most_removable
from raydream.pruning.streams import Part, Stream


def stream(name: str, channels: int, *parts: tuple[str, str]) -> Stream:
    places = tuple((channel,) for channel in range(channels))
    return Stream(name, channels, tuple(Part(layer, side, places) for layer, side in parts))


# Two convolutions and a linear layer: a -> b -> c.
A = stream("a", 4, ("a", "out"), ("b", "in"))
B = stream("b", 6, ("b", "out"), ("c", "in"))
WIDTHS = {"a": (3, 4), "b": (4, 6), "c": (6, 10)}
IMPORTANCE = {"a": torch.tensor([4.0, 1.0, 9.0, 2.0]), "b": torch.tensor([0.5, 8.0, 3.0, 7.0, 6.0, 5.0])}


def filters(name: str, channels_in: int, channels_out: int) -> float:
    return channels_out if name in "ab" else 0.0


def choose(amount: float, cost=filters, **rule: object) -> dict[str, list[int]]:
    return choose_channels([A, B], IMPORTANCE, WIDTHS, cost, amount, Rule(**{"least": 1, **rule}))


@pytest.mark.parametrize(
    ("amount", "chosen"),
    [
        (0, {}),
        (1, {"b": [0]}),
        (3, {"a": [1, 3], "b": [0]}),
        (5, {"a": [0, 1, 3], "b": [0, 2]}),
        (6, {"a": [0, 1, 3], "b": [0, 2, 5]}),
        (100, {"a": [0, 1, 3], "b": [0, 2, 3, 4, 5]}),
    ],
)
def test_the_least_important_of_the_whole_network_go_and_one_of_each_stream_stays(amount, chosen):
    assert choose(amount) == chosen


def test_so_many_channels_stay():
    assert choose(100, least=3) == {"a": [1], "b": [0, 2, 5]}
    assert choose(100, least=6) == {}


def test_channels_go_by_the_block():
    # Per channel: 1.5 for the first two of a, then 6.5; 1.75 for those of b, then 5.5.
    assert choose(2, block=2) == {"a": [1, 3]}
    assert choose(4, block=2) == {"a": [1, 3], "b": [0, 2]}
    assert choose(100, block=2) == {"a": [1, 3], "b": [0, 2, 4, 5]}
    assert choose(100, block=4) == {"b": [0, 2, 4, 5]}


def test_any_cost_can_be_the_goal():
    # Weights: removing a channel of a saves 3 + 6, one of b saves 4 + 10.
    def weights(name: str, channels_in: int, channels_out: int) -> float:
        return channels_in * channels_out

    assert choose(9, cost=weights) == {"b": [0]}
    assert choose(15, cost=weights) == {"a": [1], "b": [0]}


@pytest.mark.parametrize(("least", "share"), [(1, 8 / 10), (3, 4 / 10), (4, 2 / 10), (9, 0.0)])
def test_how_much_can_go(least, share):
    assert most_removable([A, B], WIDTHS, filters, Rule(least)) == pytest.approx(share)
    assert most_removable([A, B], WIDTHS, filters, Rule(2, block=3)) == pytest.approx(3 / 10)


def test_importance_by_cost():
    def weights(name: str, channels_in: int, channels_out: int) -> float:
        return channels_in * channels_out

    # The second of a: 1 for 9 weights; the first of b: 0.5 for 14, the third 3 for 14 (a has one less by then).
    assert choose(14, cost=weights, by_cost=True) == {"b": [0]}
    cheap = {"a": torch.tensor([4.0, 0.4, 9.0, 2.0]), "b": IMPORTANCE["b"]}
    rule = Rule(1)
    assert choose_channels([A, B], cheap, WIDTHS, weights, 1, rule) == {"a": [1]}, "0.4 is less than 0.5"
    assert choose_channels([A, B], cheap, WIDTHS, weights, 1, replace(rule, by_cost=True)) == {"b": [0]}, "for 14"


def timed(seconds, spread: float = 0.0):
    """Times of layers, whose middle half reaches so far to both sides."""

    def timing(*layer) -> Latency:
        median = seconds(*layer)
        return Latency(median, median - spread, median + spread, 1, 1)

    return timing


def steps_of(width: int, spread: float = 0.0):
    """A machine on which the channels out of b count by the full `width`, and nothing else takes time."""
    return timed(lambda name, _, channels_out: float(-(-channels_out // width)) if name == "b" else 0.0, spread)


def test_what_makes_nothing_faster_stays():
    assert choose(100, latency=steps_of(1)) == {"b": [0, 2, 3, 4, 5]}
    assert choose(100, latency=timed(lambda *_: 1.0)) == {}


def test_times_that_do_not_lie_apart_are_no_gain():
    # Two layers of a removal, each up to 0.3 away from its median: less than 4 x 0.3 faster may be chance.
    assert choose(1, latency=steps_of(1, spread=0.3)) == {"b": [0, 2]}
    assert choose(100, latency=steps_of(6, spread=0.1)) == {}


def test_channels_that_save_nothing_stay():
    assert choose(100, cost=lambda name, _, channels_out: float(channels_out) if name == "a" else 0.0) == {
        "a": [0, 1, 3]
    }


def test_a_group_is_large_enough_to_make_it_faster():
    # Six channels take two steps of four: the network is faster without two of them, and not without one.
    assert choose(1, latency=steps_of(4)) == {"b": [0, 2]}
    assert choose(100, latency=steps_of(4)) == {"b": [0, 2]}, "the rest would have to go altogether"


def test_eta_weighs_time_against_importance():
    def latency(name: str, channels_in: int, channels_out: int) -> float:
        return {"a": 1.0, "b": 0.1}.get(name, 0.0) * channels_out

    assert choose(1, latency=timed(latency), eta=0.0) == {"b": [0]}
    assert choose(1, latency=timed(latency), eta=1.0) == {"a": [1]}
