"""Criteria against what they are defined by: finite differences of a gate, in float64."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from raydream.losses.divergences import kl_divergence
from raydream.pruning.importance import CRITERIA, Evidence, draw_classes, magnitude, random, taylor
from raydream.pruning.streams import Stream, find_streams, remove
from raydream.seeds import generator
from raydream.teachers.teacher import Teacher
from tests.pruning.test_streams import network_of, some_removed
from tests.tiny import tiny_network, tiny_teacher

SHAPE = (1, 8, 8)


class Exact(nn.Module):
    """The teacher's normalization in float64."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.mean, self.std = teacher.normalization.mean.double(), teacher.normalization.std.double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.double() / 255.0 - self.mean) / self.std


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    teacher = tiny_teacher()
    exact = dataclasses.replace(teacher, network=teacher.network.double(), normalization=Exact(teacher))
    images = torch.randint(0, 256, (24, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Evidence(exact, images.split(12), temperature=3.0, seed=5)


def test_taylor_is_the_squared_slope_of_the_loss_along_each_gate(evidence):
    """The gate of a BN layer's channel is a factor on its weight and its bias; both are moved by hand here."""
    network = tiny_network(seed=1).double()
    streams = find_streams(network, SHAPE)
    measured = taylor(network, streams, evidence)
    layers = dict(network.named_modules())

    drawn = generator(evidence.seed, "importance")
    logits = [evidence.teacher.network(evidence.teacher.normalization(images)) for images in evidence.batches]
    classes = [draw_classes(each, evidence.temperature, drawn) for each in logits]

    def loss(layer: str, channel: int, gate: float, batch: int) -> float:
        moved = copy.deepcopy(network).eval()
        with torch.no_grad():
            for values in (moved.get_submodule(layer).weight, moved.get_submodule(layer).bias):
                values[channel] *= gate
            likely = moved(evidence.teacher.normalization(evidence.batches[batch])) / evidence.temperature
            return -float(likely.log_softmax(1)[torch.arange(len(likely)), classes[batch]].mean())

    for stream in streams:
        gates = [part for part in stream.parts if isinstance(layers[part.layer], nn.BatchNorm2d)]
        assert len(gates) >= 1
        for channel in (0, stream.channels - 1):
            expected, step = 0.0, 1e-5
            for part in gates:
                (place,) = part.places[channel]
                for batch in range(len(evidence.batches)):
                    up, down = (loss(part.layer, place, 1.0 + sign * step, batch) for sign in (1, -1))
                    expected += ((up - down) / (2.0 * step)) ** 2
            assert float(measured[stream.name][channel]) == pytest.approx(expected, rel=1e-5)


def test_drawn_classes_stand_for_the_divergence():
    """On average over what is drawn, the gradient is that of KL(teacher || network)."""
    temperature, random = 3.0, torch.Generator().manual_seed(0)
    teacher = torch.tensor([[4.0, 0.0, -2.0, 1.0]], dtype=torch.float64)
    logits = torch.tensor([[1.0, 2.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    (exact,) = torch.autograd.grad(kl_divergence(teacher, logits, temperature) / temperature**2, logits)
    classes = draw_classes(teacher.expand(100_000, 4), temperature, random)
    loss = functional.cross_entropy(logits.expand(100_000, 4) / temperature, classes)
    (found,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(found, exact, rtol=0.0, atol=2e-3)
    assert exact.abs().max() > 0.05


def test_before_anything_is_removed_there_is_something_to_measure(evidence):
    teacher = tiny_teacher()
    streams = find_streams(teacher.network, SHAPE)
    measured = taylor(teacher.network, streams, dataclasses.replace(evidence, teacher=teacher))
    assert all((values > 1e-12).all() for values in measured.values())


def test_measuring_leaves_the_network_alone(evidence):
    network = tiny_network(seed=1)
    state = copy.deepcopy(network.state_dict())
    teacher = tiny_teacher()
    for criterion in CRITERIA.values():
        criterion(network, find_streams(network, SHAPE), dataclasses.replace(evidence, teacher=teacher))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert network.training and all(weight.requires_grad for weight in network.parameters())
    assert not any(layer._forward_hooks for layer in network.modules())


@pytest.mark.parametrize(
    "name",
    [
        "cifar_resnet20",
        "tests.pruning.test_streams:flat_network",
        pytest.param("torchvision:mobilenet_v2", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_channel_of_every_kind_of_stream_gets_a_number(criterion, name, evidence):
    network, shape = network_of(name)
    network = network.float()
    streams = find_streams(network, shape)
    teacher = dataclasses.replace(evidence.teacher, network=network, normalization=lambda images: images.float() / 255)
    images = torch.randint(0, 256, (4, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    smaller = remove(network, streams, some_removed(streams, share=0.1))
    streams = find_streams(smaller, shape)
    found = CRITERIA[criterion](smaller, streams, dataclasses.replace(evidence, teacher=teacher, batches=[images]))
    assert found.keys() == {stream.name for stream in streams}
    for stream in streams:
        values = found[stream.name]
        assert values.shape == (stream.channels,) and values.isfinite().all() and (values >= 0).all()
        assert values.std() > 0, stream.name


def test_magnitude_is_the_norm_relative_to_the_layers_mean(evidence):
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Flatten(), nn.Linear(3, 2))
    network[0].weight.data = torch.tensor([3.0, -4.0, 5.0]).view(3, 1, 1, 1)
    (stream,) = find_streams(network, (1, 1, 1))
    assert magnitude(network, [stream], evidence)["0"].tolist() == pytest.approx([0.75, 1.0, 1.25])


def test_random_follows_from_the_seed_alone(evidence):
    network = tiny_network()
    streams: list[Stream] = find_streams(network, SHAPE)
    one, same = (random(tiny_network(seed), streams, evidence) for seed in (0, 1))
    other = random(network, streams, dataclasses.replace(evidence, seed=6))
    assert all(torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name]) for name in one)


def test_gates_are_along_the_channels_of_layers_over_positions(evidence):
    network = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.Flatten(2), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 8)),
        *(nn.Flatten(), nn.Linear(48, 10)),
    ).double()
    streams = find_streams(network, (1, 8, 8))
    found = taylor(network, streams, evidence)
    assert {len(found[stream.name]) for stream in streams} >= {20}
    assert all((found[stream.name] > 0).any() for stream in streams)
