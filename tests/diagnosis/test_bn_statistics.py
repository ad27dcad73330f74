"""Running statistics that no training leaves, each by its name."""

import pytest
import torch
from torch import nn

from raydream.diagnosis.bn_statistics import bn_statistics, statistics_findings
from tests.tiny import tiny_network


def with_change(change) -> nn.Module:
    network = tiny_network()
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        change(layers)
    return network


def test_a_trained_network_has_nothing_to_say():
    layers = bn_statistics(tiny_network())
    assert {layer.state for layer in layers} == {"trained"} and statistics_findings(layers) == []
    assert all(0 <= layer.lowest_variance <= layer.highest_variance for layer in layers)


def fresh(layers) -> None:
    for layer in layers:
        layer.reset_running_stats()


CHANGES = {
    "untrained": (fresh, "untrained", "fault", "all"),
    "one untrained": (lambda layers: layers[1].reset_running_stats(), "untrained", "fault", 1),
    "NaN": (lambda layers: layers[2].running_var[3:4].fill_(torch.nan), "not finite", "fault", 1),
    "infinity": (lambda layers: layers[0].running_mean[0:1].fill_(torch.inf), "not finite", "fault", 1),
    "negative": (lambda layers: layers[1].running_var[0:1].fill_(-1.0), "negative variance", "fault", 1),
    "huge variance": (lambda layers: layers[1].running_var.fill_(1e9), "huge", "suspected", 1),
    "huge mean": (lambda layers: layers[1].running_mean[0:1].fill_(1e5), "huge", "suspected", 1),
    "dead": (lambda layers: layers[1].running_var.fill_(0.0), "dead", "suspected", 1),
}


@pytest.mark.parametrize("what", CHANGES)
def test_statistics_that_no_training_leaves_are_named(what):
    change, state, severity, count = CHANGES[what]
    layers = bn_statistics(with_change(change))
    found = [layer for layer in layers if layer.state == state]
    assert len(found) == (len(layers) if count == "all" else count)
    (finding,) = statistics_findings(layers)
    assert finding.severity == severity and found[0].name in finding.text and finding.remedy
    assert f"{len(found)} of {len(layers)}" in finding.text


def test_a_first_layer_may_see_pixels_of_any_unit():
    layers = bn_statistics(with_change(lambda layers: layers[0].running_var.fill_(1e9)))
    assert layers[0].state == "trained"


def test_layers_without_statistics_are_no_mistake():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    (layer,) = bn_statistics(network)
    assert layer.state == "none" and statistics_findings([layer]) == []
