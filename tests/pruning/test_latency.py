"""Measuring, and the table of measurements; no test asserts a time."""

import json

import torch
from torch import nn

from raydream.evaluation.latency import filters_of, flops_of, measure_latencies
from raydream.networks.pruned import widths_of
from raydream.pruning import latency_table
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
    measure = latency_table.measure_latencies  # type: ignore[attr-defined]

    def counting(networks, shape, batch_size, passes, warm_up_s):
        asked.append((type(networks[0]).__name__, shape, batch_size))
        return measure(networks, shape, batch_size, 1, 0.0)

    monkeypatch.setattr(latency_table, "measure_latencies", counting)
    table = LatencyTable(network, SHAPE, 2, tmp_path)
    latency = table("0", 1, 5)
    assert latency.median_s > 0 and table("0", 1, 5) == latency and asked == [("Conv2d", (1, 8, 8), 2)]
    assert table("3.conv2", 3, 5).median_s > 0 and asked[1:] == [("Conv2d", (3, 8, 8), 2)]
    assert table("3.conv1", 3, 5) == table("3.conv2", 3, 5) and len(asked) == 2, "layers of one kind and size"
    assert table("4.conv2", 3, 5).median_s > 0 and asked[2:] == [("Conv2d", (3, 4, 4), 2)], "another size"
    assert table("nowhere", 3, 5).median_s == 0.0
    table.save()
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["conditions"] == conditions(torch.device("cpu"), 2)
    asked.clear()
    again = LatencyTable(network, SHAPE, 2, tmp_path)
    assert again("0", 1, 5) == latency and not asked
    assert LatencyTable(network, SHAPE, 3, tmp_path)("0", 1, 5).median_s > 0 and asked, "another batch size"
    assert widths_of(network) == widths_of(tiny_network()), "the network is left alone"


def test_a_table_that_grows_tells_and_is_kept_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(latency_table, "SAVE_S", 0.0)
    told: list[int] = []
    table = LatencyTable(tiny_network().eval(), SHAPE, 2, tmp_path, lambda: told.append(1))
    table("0", 1, 5)
    assert told == [1] and len(list(tmp_path.iterdir())) == 1
    table("0", 1, 5)
    assert told == [1], "nothing was measured"


def test_layers_over_positions_and_in_groups_are_told_apart():
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Flatten(2), nn.Linear(36, 5)
    ).eval()
    table = LatencyTable(network, SHAPE, 2)
    assert table("4", 36, 3).median_s > 0 and table("4", 20, 5).median_s > 0
    assert table("1", 8, 8) is not table("2", 8, 8)


def test_flops_leave_statistics_alone():
    network = tiny_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flops_of(network, SHAPE)
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
