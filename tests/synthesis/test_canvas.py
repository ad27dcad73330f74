"""Start, learning rate and image prior mean the same for all teachers, and are those of the published code."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.config import SynthesisConfig, TeacherConfig
from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.digits import digits_network
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.teachers.teacher import Teacher, freeze, make_teacher
from tests.tiny import WIDTH, tiny_network, tiny_synthesis, tiny_targets

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UPDATES = 20


def with_std(network: nn.Module, std: float) -> nn.Module:
    """The same function of pixels, for a normalization with another std than the tiny teacher's 0.35."""
    network = copy.deepcopy(network)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        first.weight.mul_(std / 0.35)
    return network


@pytest.mark.parametrize("std", [1 / 255, 1 / 16, 1.0])
@pytest.mark.parametrize("method", sorted(SYNTHESIZERS))
def test_images_do_not_depend_on_the_std_that_a_teacher_was_trained_with(method: str, std: float) -> None:
    config = tiny_synthesis(method=method, generator={"latent": 8, "width": 4})

    def images(std: float) -> Tensor:
        described = TeacherConfig(arguments={"width": WIDTH}, std=(std,))
        teacher, student = make_teacher(with_std(tiny_network(), std), described), with_std(tiny_network(1), std)
        return SYNTHESIZERS[method](teacher, config).synthesize(Request(tiny_targets(), 1, freeze(student))).images

    assert ((images(std).int() - images(0.35).int()).abs() <= 1).float().mean() > 0.99


class Watched(nn.Module):
    """Passes images on, and keeps those of the last pass."""

    def __init__(self, network: nn.Module, seen: list[Tensor]) -> None:
        super().__init__()
        self.network, self.seen = network, seen

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.seen[:] = [x.detach().clone()]
        return self.network(x)

    def __deepcopy__(self, memo: dict[int, object]) -> "Watched":
        return Watched(copy.deepcopy(self.network, memo), self.seen)


def color_networks() -> tuple[nn.Module, nn.Module]:
    """A teacher's and a student's network for three channels, with statistics of blurred noise."""
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = digits_network(input_channels=3, width=WIDTH)
        for _ in range(10):
            network(functional.interpolate(torch.randn(32, 3, 3, 3), size=(8, 8), mode="bilinear"))
        networks.append(freeze(network))
    return networks[0], networks[1]


def published(
    teacher: nn.Module, student: nn.Module | None, config: SynthesisConfig, sizes: list[int], seed: int
) -> Tensor:
    """The published loop, written from the paper: after `UPDATES` a resolution, what the networks would see next.

    In a space of its own, (pixels - mean) / 0.225, which is ImageNet's normalization but for two percent.
    """
    random, weights = torch.Generator().manual_seed(seed), config.coefficients
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    u = torch.randn(8, 3, sizes[0], sizes[0], generator=random)
    layers = batch_norm_layers(teacher).values()
    for size in sizes:
        if u.shape[2] != size:
            u = u.repeat_interleave(2, 2).repeat_interleave(2, 3)
        first, second = torch.zeros_like(u), torch.zeros_like(u)
        for update in range(1, UPDATES + 1):
            u.requires_grad_()
            distances: list[Tensor] = []

            def measure(layer: nn.Module, inputs: tuple[Tensor], distances: list[Tensor] = distances) -> None:
                mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False)
                distances.append((mean - layer.running_mean).norm() + (variance - layer.running_var).norm())

            hooks = [layer.register_forward_pre_hook(measure) for layer in layers]
            x = u * 0.225 / std
            logits = teacher(x)
            for hook in hooks:
                hook.remove()
            loss = weights.classification * functional.cross_entropy(logits, tiny_targets())
            loss = loss + weights.feature * (config.first_bn * distances[0] + sum(distances[1:]))
            pairs = [(u[..., 1:], u[..., :-1]), (u[..., 1:, :], u[..., :-1, :])]
            pairs += [(u[..., 1:, 1:], u[..., :-1, :-1]), (u[..., 1:, :-1], u[..., :-1, 1:])]
            loss = loss + weights.tv * sum((one - other).norm() for one, other in pairs) + weights.l2 * u.norm()
            if student is not None:
                p, q = (each.div(3.0).softmax(1) for each in (logits, student(x)))
                middle = (p + q) / 2
                js = ((p * (p / middle).log()).sum(1) + (q * (q / middle).log()).sum(1)).mean() / 2
                loss = loss + weights.competition * (1 - js)
            (gradient,) = torch.autograd.grad(loss, u)
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            step = (first / (1 - 0.9**update)) / ((second / (1 - 0.999**update)).sqrt() + 1e-8)
            u = (u.detach() - config.learning_rate * step).clamp(-mean / 0.225, (1 - mean) / 0.225)
    return u * 0.225 / std


@pytest.mark.parametrize("sizes", [[8], [4, 8]], ids=["one resolution", "two"])
@pytest.mark.parametrize("method", ["deep_inversion", "adaptive"])
def test_settings_mean_what_they_mean_in_the_published_loop(method: str, sizes: list[int]) -> None:
    network, student = color_networks()
    described = TeacherConfig(input_shape=(3, 8, 8), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    config = tiny_synthesis(
        method=method,
        jitter=0,
        learning_rate=0.05,
        first_bn=10.0,
        stages=[*[{"size": (size, size), "iterations": UPDATES} for size in sizes[:-1]], {"iterations": UPDATES + 1}],
        coefficients={"tv": 1e-4, "l2": 1e-5, "feature": 1e-2, "competition": 0.2},
    )
    seen: list[Tensor] = []
    plain = make_teacher(network, described)
    teacher: Teacher = replace(plain, network=Watched(network, seen).eval())
    SYNTHESIZERS[method](teacher, config).synthesize(Request(tiny_targets(), 5, student))
    expected = published(network, student if method == "adaptive" else None, config, sizes, 5)
    difference = (seen[0] - expected) * plain.normalization.std
    assert float(difference.abs().max()) < 1e-4, "of pixels in [0, 1]"
