"""What holds for every synthesizer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydream.losses.feature_statistics import FeatureObserver
from raydream.synthesis import SYNTHESIZERS, Request, Synthesis
from raydream.teachers.teacher import Teacher
from tests.tiny import tiny_student, tiny_synthesis, tiny_targets, tiny_teacher

METHODS = sorted(SYNTHESIZERS)


class Watched(nn.Module):
    """Passes images on, and remembers the lowest and highest value of each pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.ranges: list[tuple[float, float]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.ranges.append((x.min().item(), x.max().item()))
        return self.network(x)


class RaisesLater(nn.Module):
    def __init__(self, network: nn.Module, calls: int) -> None:
        super().__init__()
        self.network, self.calls = network, calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("out of memory")
        return self.network(x)


def synthesize(method: str, seed: int = 0, teacher: Teacher | None = None, **changes: object) -> Synthesis:
    request = {name: changes.pop(name) for name in ("student", "start") if name in changes}
    synthesizer = SYNTHESIZERS[method](teacher or tiny_teacher(), tiny_synthesis(**changes))
    return synthesizer.synthesize(Request(tiny_targets(), seed, **request))


def first_pixels(teacher: Teacher, seed: int) -> Tensor:
    """The images of no update at all."""
    noise = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return teacher.normalisation.quantise(noise)


def class_loss(teacher: Teacher, images: Tensor) -> float:
    logits = teacher.logits(images).double()
    return -torch.log_softmax(logits, 1)[torch.arange(len(images)), tiny_targets(len(images))].mean().item()


def feature_total(teacher: Teacher, images: Tensor) -> float:
    with FeatureObserver(teacher.network) as observer, torch.no_grad():
        teacher.network(teacher.normalisation(images))
        return observer.distances().sum().item()


def hooks_of(network: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules())


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_the_pixels(method):
    with_student = {"student": tiny_student()} if method == "adaptive" else {}
    torch.manual_seed(1)
    first = synthesize(method, 5, **with_student)
    torch.manual_seed(2)
    again = synthesize(method, 5, **with_student)
    other = synthesize(method, 6, **with_student)
    assert torch.equal(first.images, again.images) and first.losses == again.losses
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("method", METHODS)
def test_images_are_bytes_of_the_teachers_shape(method):
    made = synthesize(method)
    assert made.images.dtype == torch.uint8 and made.images.shape == (8, 1, 8, 8)
    assert made.restarts == 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_the_teacher_see_the_targets(method):
    teacher = tiny_teacher()
    made = synthesize(method, teacher=teacher, iterations=40, jitter=0)
    before, after = class_loss(teacher, first_pixels(teacher, 0)), class_loss(teacher, made.images)
    assert after < 0.8 * before


def test_noise_reaches_the_lowest_class_loss_as_nothing_else_counts():
    teacher = tiny_teacher()
    losses = {
        method: class_loss(teacher, synthesize(method, teacher=teacher, iterations=40, jitter=0).images)
        for method in ("noise", "deep_inversion")
    }
    assert losses["noise"] < losses["deep_inversion"]


def test_deep_inversion_brings_the_feature_statistics_closer():
    teacher = tiny_teacher()
    made = synthesize("deep_inversion", teacher=teacher, iterations=40, jitter=0)
    noise = synthesize("noise", teacher=teacher, iterations=40, jitter=0)
    after = feature_total(teacher, made.images)
    assert after < 0.6 * feature_total(teacher, first_pixels(teacher, 0))
    assert after < 0.8 * feature_total(teacher, noise.images)


def test_deepdream_smooths_where_noise_does_not():
    strong = {"coefficients": {"tv": 0.1}, "iterations": 40, "jitter": 0}
    images = {method: synthesize(method, **strong).images.double() for method in ("noise", "deepdream")}
    roughness = {method: float((x[..., 1:] - x[..., :-1]).abs().mean()) for method, x in images.items()}
    assert roughness["deepdream"] < 0.8 * roughness["noise"]


def test_distances_are_told_by_layer_where_they_are_measured():
    assert synthesize("noise").distances == {}
    made = synthesize("deep_inversion")
    assert list(made.distances)[:2] == ["1", "3.bn1"] and len(made.distances) == 8
    assert made.losses["feature"] == pytest.approx(sum(made.distances.values()), rel=1e-5)


@pytest.mark.parametrize(
    ("method", "terms"),
    [
        ("noise", {"classification"}),
        ("deepdream", {"classification", "tv", "l2"}),
        ("deep_inversion", {"classification", "tv", "l2", "feature"}),
    ],
)
def test_each_method_has_its_terms_and_a_curve_that_ends_in_the_losses(method, terms):
    made = synthesize(method, iterations=45)
    assert set(made.losses) == set(made.curve) == terms
    for term, points in made.curve.items():
        updates = [update for update, _ in points]
        assert updates[0] == 0 and updates[-1] == 44 and updates == sorted(set(updates))
        assert points[-1][1] == made.losses[term]


@pytest.mark.parametrize("clip", [True, False])
def test_clipping_keeps_pixels_in_the_range_of_real_ones(clip):
    teacher = tiny_teacher()
    watched = replace(teacher, network=Watched(teacher.network).eval())
    synthesize("noise", teacher=watched, learning_rate=1.0, clip=clip, iterations=10)
    low, high = (bound.item() for bound in teacher.normalisation.valid_range())
    assert watched.network.ranges[0][0] < low  # the first pixels are N(0, 1), whatever the range
    later = watched.network.ranges[1:]
    inside = all(low <= least and most <= high for least, most in later)
    assert len(later) == 9 and inside == clip


def test_images_to_start_from_are_where_it_starts():
    start = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8), dtype=np.uint8))
    kept = start.clone()
    still = synthesize("deep_inversion", start=start, learning_rate=1e-9)
    moved = synthesize("deep_inversion", start=start, learning_rate=0.1)
    assert torch.equal(still.images, start) and not torch.equal(moved.images, start)
    assert torch.equal(start, kept)


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_a_single_update_is_adams_first_step(decay):
    # Adam's first update moves each pixel by the learning rate against the sign of its gradient.
    teacher = tiny_teacher()
    start = torch.full((8, 1, 8, 8), 128, dtype=torch.uint8)
    made = synthesize("noise", teacher=teacher, start=start, iterations=1, learning_rate=0.2, decay=decay, jitter=0)
    x = teacher.normalisation(start).requires_grad_()
    loss = nn.functional.cross_entropy(teacher.network(x), tiny_targets())
    (gradient,) = torch.autograd.grad(loss, x)
    moved = (gradient.abs() > 1e-4).numpy()  # smaller ones are damped by Adam's epsilon
    steps = (made.images.int() - 128).numpy()
    expected = -gradient.sign().numpy() * round(0.2 * 0.35 * 255)
    assert moved.mean() > 0.5 and np.array_equal(steps[moved], expected[moved])


def test_the_cosine_changes_the_pixels():
    constant, cosine = (synthesize("noise", decay=decay).images for decay in ("constant", "cosine"))
    assert not torch.equal(constant, cosine)


@pytest.mark.parametrize("method", METHODS)
def test_no_hook_and_no_change_is_left_on_the_teacher(method):
    teacher = tiny_teacher()
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    synthesize(method, teacher=teacher)
    assert hooks_of(teacher.network) == 0
    assert all(torch.equal(before[name], value) for name, value in teacher.network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.network.parameters())
    assert not any(module.training for module in teacher.network.modules())


@pytest.mark.parametrize("calls", [0, 3])
def test_no_hook_is_left_when_the_teacher_fails(calls):
    teacher = tiny_teacher()
    failing = replace(teacher, network=RaisesLater(teacher.network, calls).eval())
    with pytest.raises(RuntimeError, match="out of memory"):
        synthesize("deep_inversion", teacher=failing)
    assert hooks_of(teacher.network) == 0


def test_synthesizers_have_a_state_that_goes_round():
    for synthesizer in SYNTHESIZERS.values():
        one = synthesizer(tiny_teacher(), tiny_synthesis())
        one.load_state_dict(one.state_dict())
        assert one.state_dict() == {}
