"""Measuring, and the table of measurements; no test asserts a time."""

import json

import torch
from torch import nn

from raydream.evaluation.latency import filters_of, flops_of, measure_latencies
from raydream.networks.pruned import widths_of
from raydream.pruning import latency_table
from raydream.pruning.costs import total
from raydream.pruning.latency_table import LatencyTable, conditions
from tests.tiny import tiny_network

SHAPE = (1, 8, 8)


def test_passes_take_turns_and_their_middle_half_is_told():
    turns: list[int] = []

    class Noting(nn.Module):
        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape == (3, *SHAPE) and torch.is_inference_mode_enabled()
            turns.append(self.index)
            return x

    one, other = measure_latencies([Noting(0), Noting(1)], SHAPE, batch_size=3, passes=5)
    assert turns[-10:] == [0, 1] * 5
    for latency in (one, other):
        assert 0 < latency.low_s <= latency.median_s <= latency.high_s
        assert latency.passes == 5 and latency.batch_size == 3


def test_flops_and_filters_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 10))
    assert flops_of(network, SHAPE) == 2 * 4 * 9 * 64 + 2 * 256 * 10 and filters_of(network) == 4


def test_a_table_measures_what_it_is_asked_for_once_and_keeps_it(tmp_path, monkeypatch):
    network, asked = tiny_network().eval(), []
    measure = latency_table.measure_latencies

    def counting(networks, shape, batch_size, passes, warm_up_s):
        asked.append((type(networks[0]).__name__, shape, batch_size))
        return measure(networks, shape, batch_size, 1, 0.0)

    monkeypatch.setattr(latency_table, "measure_latencies", counting)
    table = LatencyTable(network, SHAPE, 2, tmp_path)
    seconds = table("0", 1, 5)
    assert seconds > 0 and table("0", 1, 5) == seconds and asked == [("Conv2d", (1, 8, 8), 2)]
    assert table("3.conv2", 3, 5) > 0 and asked[1:] == [("Conv2d", (3, 8, 8), 2)]
    assert table("3.conv1", 3, 5) == table("3.conv2", 3, 5) and len(asked) == 2, "layers of one kind and size"
    assert table("4.conv2", 3, 5) > 0 and asked[2:] == [("Conv2d", (3, 4, 4), 2)], "another size"
    assert table("nowhere", 3, 5) == 0.0
    assert total(table, widths_of(network)) > 0
    table.save()
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["conditions"] == conditions(torch.device("cpu"), 2)
    asked.clear()
    again = LatencyTable(network, SHAPE, 2, tmp_path)
    assert again("0", 1, 5) == seconds and not asked
    assert LatencyTable(network, SHAPE, 3, tmp_path)("0", 1, 5) > 0 and asked, "another batch size"
    assert widths_of(network) == widths_of(tiny_network()), "the network is left alone"
