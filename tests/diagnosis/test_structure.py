"""What can be done with each layer of a network, and why not."""

import copy

import pytest
import torch
from torch import nn

from raydream.config import TeacherConfig
from raydream.diagnosis import structure as module
from raydream.diagnosis.structure import structure, structure_findings
from tests.tiny import WIDTH, tiny_network


@pytest.fixture(autouse=True)
def without_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes seconds; the test of the job does it."""
    monkeypatch.setattr(module, "_exported", lambda network, config: "yes")


def config(**changes: object) -> TeacherConfig:
    return TeacherConfig(**{"arguments": {"width": WIDTH}, **changes})


def test_all_can_be_done_with_a_plain_network():
    network = tiny_network().eval()
    before = copy.deepcopy(network.state_dict())
    found = structure(network, config())
    assert found.quantized == "yes" and found.pruned.startswith("yes") and found.last is not None
    kinds = {layer.kind for layer in found.layers}
    assert {"Conv2d", "BatchNorm2d", "Linear"} <= kinds
    assert all(layer.observed == "yes" for layer in found.layers if layer.kind == "BatchNorm2d")
    assert all(layer.quantized == "yes" for layer in found.layers if layer.kind in ("Conv2d", "Linear"))
    assert structure_findings(network, found) == []
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Odd(nn.Module):
    """A layer that does not run, one without statistics, one in groups, a group normalization, and PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.silent = nn.BatchNorm2d(8, track_running_stats=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.group_norm = nn.GroupNorm(2, 8)
        self.auxiliary = nn.BatchNorm2d(8)
        self.unused = nn.Linear(8, 3)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.silent(torch.relu(self.bn(self.stem(x))))
        return self.head(self.group_norm(self.grouped(x)).mean((2, 3)))


def test_what_cannot_be_done_has_a_reason():
    network = Odd().eval()
    found = structure(network, config())
    layers = {layer.name: layer for layer in found.layers}
    assert layers["bn"].observed == "yes" and layers["bn"].map == "8x8"
    assert "track_running_stats" in layers["silent"].observed
    assert "does not run" in layers["auxiliary"].observed and "does not run" in layers["unused"].quantized
    assert "GroupNorm" in layers["group_norm"].observed
    assert "groups" in layers["grouped"].pruned or "groups" in layers["stem"].pruned
    assert [finding.severity for finding in structure_findings(network, found)].count("suspected") == 1


def test_a_network_without_statistics_is_told_which_methods_work():
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()
    finding = structure_findings(network, structure(network, config()))[0]
    assert finding.severity == "fault" and "deepdream" in finding.remedy


@pytest.mark.parametrize(("side", "suspected"), [(8, False), (64, True)])
def test_a_large_last_map_hints_at_too_large_images(side, suspected):
    network = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    ).eval()
    found = structure_findings(network, structure(network, config(input_shape=(1, side, side))))
    assert any(finding.about == "size" for finding in found) == suspected


def test_a_network_that_cannot_be_followed_has_the_reason(monkeypatch):
    def failing(*given: object) -> None:
        raise RuntimeError("no graph\nmore")

    monkeypatch.setattr(module, "follow", failing)
    found = structure(tiny_network().eval(), config())
    assert all("no graph" in layer.pruned for layer in found.layers if layer.kind == "Conv2d")


def test_the_exporter_is_asked(monkeypatch):
    def failing(*given: object) -> None:
        raise RuntimeError("an operator is missing\nstack")

    monkeypatch.undo()
    monkeypatch.setattr(module, "export_onnx", failing)
    assert structure(tiny_network().eval(), config()).exported == "no: an operator is missing"
