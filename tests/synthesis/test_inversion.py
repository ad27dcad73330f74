"""What holds for every synthesizer, and for every inversion."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.compute import choose_dtype
from raydream.config import SynthesisConfig, TeacherConfig
from raydream.errors import SynthesisError
from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.digits import digits_network
from raydream.synthesis import SYNTHESIZERS, Request, Synthesis
from raydream.synthesis.inversion import Inversion
from raydream.teachers.teacher import Teacher, make_teacher
from tests.tiny import tiny_student, tiny_synthesis, tiny_targets, tiny_teacher

METHODS = sorted(SYNTHESIZERS)
INVERSIONS = [method for method in METHODS if issubclass(SYNTHESIZERS[method], Inversion)]


class Watched(nn.Module):
    """Passes images on, and tells the lowest and highest value of each pass."""

    def __init__(self, network: nn.Module, tell: Callable[[tuple[float, float]], None]) -> None:
        super().__init__()
        self.network, self.tell = network, tell

    def forward(self, x: Tensor) -> Tensor:
        self.tell((x.min().item(), x.max().item()))
        return self.network(x)


class RaisesLater(nn.Module):
    def __init__(self, network: nn.Module, calls: int) -> None:
        super().__init__()
        self.network, self.calls = network, calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("the cable came out")
        return self.network(x)


class Narrow(nn.Module):
    """A network whose memory ends at so many images, if it is to remember them for gradients."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.network(x)


def synthesize(method: str, seed: int = 0, teacher: Teacher | None = None, **changes: object) -> Synthesis:
    request = {name: changes.pop(name) for name in ("student", "start") if name in changes}
    settings = {"method": method, "generator": {"latent": 8, "width": 4}, **changes}
    synthesizer = SYNTHESIZERS[method](teacher or tiny_teacher(), tiny_synthesis(**settings))
    return synthesizer.synthesize(Request(tiny_targets(), seed, **request))


def first_pixels(teacher: Teacher, seed: int) -> Tensor:
    """The images of no update at all."""
    noise = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return teacher.normalization.canvas().quantize(noise)


def class_loss(teacher: Teacher, images: Tensor) -> float:
    logits = teacher.logits(images).double()
    return -torch.log_softmax(logits, 1)[torch.arange(len(images)), tiny_targets(len(images))].mean().item()


def statistics_by_hand(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, and the sum of all layers' distances (eq. 5): hooks for this pass, and numbers one after another."""
    distances: list[Tensor] = []

    def measure(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        flat = inputs[0].transpose(0, 1).flatten(1)
        mean = flat.mean(1)
        variance = (flat - mean[:, None]).square().mean(1)
        distances.append((mean - layer.running_mean).norm() + (variance - layer.running_var).norm())

    handles = [layer.register_forward_pre_hook(measure) for layer in batch_norm_layers(network).values()]
    logits = network(x)
    for handle in handles:
        handle.remove()
    return logits, torch.stack(distances).sum()


def feature_total(teacher: Teacher, images: Tensor) -> float:
    with torch.no_grad():
        return statistics_by_hand(teacher.network, teacher.normalization(images))[1].item()


def color_teacher() -> Teacher:
    """Three channels of different normalization, 8 x 6 pixels."""
    torch.manual_seed(0)
    network = digits_network(input_channels=3, width=8)
    with torch.no_grad():
        network[-1].weight.mul_(10.0)
    for _ in range(10):
        network(functional.interpolate(torch.randn(32, 3, 3, 3), size=(8, 6), mode="bilinear"))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    return make_teacher(network, TeacherConfig(input_shape=(3, 8, 6), mean=mean, std=std))


def slow_deep_inversion(teacher: Teacher, config: SynthesisConfig, seed: int) -> Tensor:
    """Alg. of section 3.2 as one reads it: autograd through the jitter, and Adam's equations; pixels in [0, 1].

    Pixels are optimized in units of 0.225 from the mean, in which the paper's settings are given.
    """
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(8, *teacher.config.input_shape, generator=random)
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    beta1, beta2 = config.betas
    mean, std = teacher.normalization.mean, teacher.normalization.std
    for update in range(1, config.iterations + 1):
        x.requires_grad_()
        seen = x
        if config.jitter:
            down, right = torch.randint(-config.jitter, config.jitter + 1, (2,), generator=random).tolist()
            seen = x.roll((down, right), (2, 3))
        if config.flip and torch.rand((), generator=random).item() < 0.5:
            seen = seen.flip(3)
        logits, feature = statistics_by_hand(teacher.network, seen * 0.225 / std)
        differences = (
            seen[..., 1:] - seen[..., :-1],
            seen[..., 1:, :] - seen[..., :-1, :],
            seen[..., 1:, 1:] - seen[..., :-1, :-1],
            seen[..., 1:, :-1] - seen[..., :-1, 1:],
        )
        weights = config.coefficients
        loss = weights.classification * functional.cross_entropy(logits, tiny_targets())
        loss = loss + weights.tv * sum(difference.norm() for difference in differences)
        loss = loss + weights.l2 * seen.norm() + weights.feature * feature
        (gradient,) = torch.autograd.grad(loss, x)
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        step = (first / (1 - beta1**update)) / ((second / (1 - beta2**update)).sqrt() + 1e-8)
        x = torch.clamp(x.detach() - config.learning_rate * step, -mean / 0.225, (1 - mean) / 0.225)
    return x * 0.225 + mean


def hooks_of(network: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in network.modules())


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_the_pixels(method):
    with_student = {"student": tiny_student()} if method in ("adaptive", "fast", "noisy") else {}
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


@pytest.mark.parametrize("method", INVERSIONS)
def test_every_method_makes_the_teacher_see_the_targets(method):
    teacher = tiny_teacher()
    made = synthesize(method, teacher=teacher, iterations=40, jitter=0, coefficients={"feature": 1.0})
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


@pytest.mark.parametrize("method", METHODS)
def test_every_coefficient_of_a_method_counts(method):
    told = SynthesisConfig(method=method).terms
    made = synthesize(method, iterations=1, student=tiny_student(), coefficients=dict.fromkeys(told, 0.5))
    assert set(made.losses) == set(told)


@pytest.mark.parametrize("clip", [True, False])
def test_clipping_keeps_pixels_in_the_range_of_real_ones(clip):
    teacher, ranges = tiny_teacher(), []
    watched = replace(teacher, network=Watched(teacher.network, ranges.append).eval())
    synthesize("noise", teacher=watched, learning_rate=1.0, clip=clip, iterations=10)
    low, high = (bound.item() for bound in teacher.normalization.valid_range())
    first, *later = ranges[-10:]
    assert first[0] < low  # the first pixels are N(0, 1), whatever the range
    inside = all(low <= least and most <= high for least, most in later)
    assert len(later) == 9 and inside == clip


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("jitter", [0, 1, 3])
@pytest.mark.parametrize("build", [tiny_teacher, color_teacher])
def test_the_loop_is_the_algorithm_as_one_reads_it(build, jitter, flip):
    teacher, weights = build(), {"tv": 0.01, "l2": 0.003, "feature": 0.7, "competition": 0.0}
    settings = {"iterations": 12, "jitter": jitter, "flip": flip, "betas": (0.8, 0.95), "coefficients": weights}
    made = synthesize("deep_inversion", 4, teacher, **settings)
    expected = slow_deep_inversion(teacher, tiny_synthesis(**settings), 4)
    difference = made.images.double() - expected * 255
    # fp32 sums in another order, which Adam makes much of where a gradient is nearly zero.
    assert float((difference.abs() <= 1.0).double().mean()) > 0.97


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
    x = teacher.normalization(start).requires_grad_()
    loss = nn.functional.cross_entropy(teacher.network(x), tiny_targets())
    (gradient,) = torch.autograd.grad(loss, x)
    moved = (gradient.abs() > 1e-4).numpy()  # smaller ones are damped by Adam's epsilon
    steps = (made.images.int() - 128).numpy()
    expected = -gradient.sign().numpy() * round(0.2 * 0.225 * 255)
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
    with pytest.raises(RuntimeError, match="cable"):
        synthesize("deep_inversion", teacher=failing)
    assert hooks_of(teacher.network) == 0


@pytest.mark.parametrize("method", INVERSIONS)
def test_one_synthesizer_makes_batch_after_batch_as_fresh_ones_would(method):
    kept = SYNTHESIZERS[method](tiny_teacher(), tiny_synthesis(method=method))
    for seed, count in ((0, 8), (1, 8), (0, 5), (0, 8)):
        fresh = SYNTHESIZERS[method](tiny_teacher(), tiny_synthesis(method=method))
        made, expected = (one.synthesize(Request(tiny_targets(count), seed)) for one in (kept, fresh))
        assert torch.equal(made.images, expected.images) and made.curve == expected.curve


@pytest.mark.parametrize(
    ("precision", "method"), [("bf16", "deep_inversion"), ("bf16", "adaptive"), ("fp16", "adaptive")]
)
def test_half_precision_finds_images_as_good(method, precision):
    student = {"student": tiny_student()} if method == "adaptive" else {}
    settings = {"iterations": 40, "jitter": 0, "learning_rate": 0.02, **student}
    teacher = tiny_teacher()
    half = synthesize(method, teacher=teacher, precision=precision, **settings)
    single = synthesize(method, teacher=teacher, precision="fp32", **settings)
    assert not torch.equal(half.images, single.images)
    assert all(math.isfinite(value) for value in half.losses.values())
    assert class_loss(teacher, half.images) == pytest.approx(class_loss(teacher, single.images), rel=0.1)


def test_auto_is_the_precision_of_this_machine():
    name = {torch.bfloat16: "bf16", torch.float32: "fp32"}[choose_dtype("auto", torch.device("cpu"))]
    auto, named = (synthesize("deep_inversion", precision=precision) for precision in ("auto", name))
    assert torch.equal(auto.images, named.images) and auto.losses == named.losses


@pytest.mark.parametrize("method", ["noise", "deepdream", "deep_inversion"])
@pytest.mark.parametrize("chunk_size", [1, 3, 8, 1000])
def test_a_batch_in_chunks_is_the_batch_at_once(method, chunk_size):
    at_once, in_chunks = synthesize(method), synthesize(method, chunk_size=chunk_size)
    difference = (at_once.images.int() - in_chunks.images.int()).abs()
    assert float((difference <= 1).double().mean()) > 0.97
    assert in_chunks.losses == pytest.approx(at_once.losses, rel=1e-3)
    assert in_chunks.distances == pytest.approx(at_once.distances, rel=1e-2)
    assert in_chunks.notes == ()


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_the_image_prior_alone_is_an_objective(chunk_size):
    flat = {"classification": 0.0, "tv": 1.0, "tv_l1": 1.0}
    settings = {"coefficients": flat, "iterations": 40, "jitter": 0, "chunk_size": chunk_size}
    made = synthesize("deepdream", **settings).images.double()
    first = first_pixels(tiny_teacher(), 0).double()
    assert (made[..., 1:] - made[..., :-1]).abs().mean() < 0.3 * (first[..., 1:] - first[..., :-1]).abs().mean()


def test_where_memory_ends_the_batch_is_made_in_chunks_and_says_so_once():
    teacher = tiny_teacher()
    narrow = replace(teacher, network=Narrow(teacher.network, 3).eval())
    synthesizer = SYNTHESIZERS["deep_inversion"](narrow, tiny_synthesis(method="deep_inversion"))
    made, again = (synthesizer.synthesize(Request(tiny_targets(), 0)) for _ in range(2))
    assert [note.split()[-1] for note in made.notes] == ["4", "2"] and again.notes == ()
    assert all("out of memory" in note for note in made.notes)
    asked = synthesize("deep_inversion", chunk_size=2)
    for images in (made.images, again.images):
        assert torch.equal(images, asked.images)
    assert asked.notes == () and made.restarts == 0


@pytest.mark.parametrize("method", METHODS)
def test_images_that_do_not_fit_into_memory_one_by_one_are_given_up(method):
    teacher = tiny_teacher()
    narrow = replace(teacher, network=Narrow(teacher.network, 0).eval())
    with pytest.raises(SynthesisError, match="out of memory at a single image"):
        synthesize(method, teacher=narrow)


def test_progress_is_told_from_the_first_update_to_the_last():
    shares: list[float] = []
    synthesizer = SYNTHESIZERS["noise"](tiny_teacher(), tiny_synthesis(method="noise", iterations=45))
    synthesizer.synthesize(Request(tiny_targets(), 0, on_progress=shares.append))
    assert shares[0] == pytest.approx(1 / 45) and shares[-1] == 1.0
    assert shares == sorted(set(shares)) and len(shares) == 45


def test_inversions_learn_nothing_from_batch_to_batch():
    for method in INVERSIONS:
        one = SYNTHESIZERS[method](tiny_teacher(), tiny_synthesis(method=method))
        one.load_state_dict(one.state_dict())
        assert one.state_dict() == {}
