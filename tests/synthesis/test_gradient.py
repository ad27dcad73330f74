"""PixelGradient: whole, in chunks, and in half precision."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from raydream.config import CoefficientsConfig, SynthesisConfig
from raydream.losses.feature_statistics import FeatureDistances
from raydream.losses.objective import TERMS, Objective
from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.observed import ObservedNetwork, frozen_copy, last_layer
from raydream.synthesis.gradient import Evaluation, PixelGradient
from tests.tiny import tiny_network

WEIGHTS = {
    "classification": 1.3,
    "tv": 0.1,
    "tv_l1": 0.2,
    "l2": 0.05,
    "l2_per_image": 0.07,
    "feature": 1.5,
    "competition": 9.0,
    "masked_kl": 5.0,
    "one_hot": 1.1,
    "activation": 0.6,
    "information_entropy": 4.0,
}
PRIOR = ("tv", "tv_l1", "l2", "l2_per_image")
PARTS = (("classification",), ("feature",), ("competition",), PRIOR)
COMBINATIONS = [sum(parts, ()) for count in range(1, len(PARTS) + 1) for parts in itertools.combinations(PARTS, count)]
ALL = COMBINATIONS[-1]
FAST = ("classification", "feature", "masked_kl")
DAFL = ("one_hot", "activation", "information_entropy")
COMBINATIONS += [FAST, DAFL, *((term,) for term in DAFL), ("feature", "activation"), ALL + DAFL]


def config_of(**changes: object) -> SynthesisConfig:
    return SynthesisConfig(
        first_bn=3.0, competition_temperature=2.0, coefficients=CoefficientsConfig(**WEIGHTS), **changes
    )


def gradient_of(
    terms: tuple[str, ...],
    chunk_size: int | None = None,
    networks: tuple[nn.Module, nn.Module] | None = None,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    in_one_graph: bool = False,
) -> PixelGradient:
    """As an inversion builds it; in float64 where the networks are."""
    teacher, student = networks or doubles()
    objective = Objective(terms, config_of())
    before = last_layer(teacher, 10) if "activation" in terms else None
    observed = ObservedNetwork(teacher, statistics="feature" in terms, before=before)
    distances = FeatureDistances(observed) if "feature" in terms else None
    other = frozen_copy(student) if {"competition", "masked_kl"} & {*terms} else None
    ways = torch.ones(1, 1, 1, 1), dtype, compiled, in_one_graph, chunk_size
    return PixelGradient(objective, observed, distances, other, *ways)


def singles() -> tuple[nn.Module, nn.Module]:
    return tiny_network(0), tiny_network(15)


def doubles() -> tuple[nn.Module, nn.Module]:
    """A teacher and a student that name the same class for some images, and not for others."""
    return tiny_network(0).double(), tiny_network(15).double()


def some_images(count: int, seed: int = 0, **kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Images that differ in brightness, so that no chunk's statistics are those of the batch."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=random)
    return (images + torch.linspace(-1.5, 1.5, count).view(-1, 1, 1, 1)).to(**kind), torch.arange(count) % 10


def plain_evaluation(terms: tuple[str, ...], images: Tensor, targets: Tensor) -> Evaluation:
    """The same from the equations, in float64: hooks, means and variances one after the other, and autograd."""
    teacher, student = (network.eval() for network in doubles())
    layers = list(batch_norm_layers(teacher).values())
    entered: dict[nn.Module, Tensor] = {}
    for layer in layers:
        layer.register_forward_hook(lambda layer, inputs, output: entered.update({layer: inputs[0]}))
    x = images.clone().requires_grad_()
    logits = teacher(x)
    values, distances = {}, None
    if "classification" in terms:
        chosen = torch.softmax(logits, 1)[torch.arange(len(x)), targets]
        values["classification"] = -chosen.log().mean()
    if "feature" in terms:
        told = []
        for layer in layers:
            flat = entered[layer].transpose(0, 1).flatten(1)
            mean = flat.sum(1) / flat.shape[1]
            variance = ((flat - mean[:, None]) ** 2).sum(1) / flat.shape[1]
            of_means = ((mean - layer.running_mean) ** 2).sum().sqrt()
            told.append(of_means + ((variance - layer.running_var) ** 2).sum().sqrt())
        distances = torch.stack(told)
        values["feature"] = 3.0 * told[0] + sum(told[1:])
    if "competition" in terms:
        p, q = torch.softmax(logits / 2.0, 1), torch.softmax(student(x) / 2.0, 1)
        m = (p + q) / 2
        values["competition"] = 1.0 - (0.5 * p * (p / m).log() + 0.5 * q * (q / m).log()).sum(1).mean()
    if "masked_kl" in terms:
        p, q = torch.softmax(logits, 1), torch.softmax(student(x), 1)
        same = [row.argmax() == other.argmax() for row, other in zip(p, q, strict=True)]
        assert any(same) and not all(same)
        values["masked_kl"] = -sum((a * (a / b).log()).sum() for a, b, s in zip(p, q, same, strict=True) if s) / len(x)
    if "tv" in terms:
        differences = [
            x[..., 1:] - x[..., :-1],
            x[..., 1:, :] - x[..., :-1, :],
            x[..., 1:, 1:] - x[..., :-1, :-1],
            x[..., :-1, 1:] - x[..., 1:, :-1],
        ]
        values["tv"] = sum((d**2).sum().sqrt() for d in differences)
        values["tv_l1"] = sum(d.abs().sum() / d.numel() for d in differences)
        values["l2"] = (x**2).sum().sqrt()
        values["l2_per_image"] = sum((image**2).sum().sqrt() for image in x) / len(x)
    if "one_hot" in terms:
        values["one_hot"] = -torch.softmax(logits, 1).max(1).values.log().mean()
    if "activation" in terms:
        entered_last = teacher[:-1](x)
        values["activation"] = -sum(row.abs().sum() for row in entered_last) / entered_last.numel()
    if "information_entropy" in terms:
        mean = sum(torch.softmax(row, 0) for row in logits) / len(logits)
        values["information_entropy"] = (mean * mean.log()).sum()
    total = sum(WEIGHTS[name] * value for name, value in values.items())
    (gradient,) = torch.autograd.grad(total, x)
    return Evaluation(gradient, total, values, distances)


def assert_same(found: Evaluation, expected: Evaluation, accuracy: float) -> None:
    largest = expected.gradient.abs().max().item()
    assert largest > 0
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=0.0, atol=accuracy * largest)
    torch.testing.assert_close(found.total.detach(), expected.total.detach(), rtol=accuracy, atol=0.0)
    assert found.values.keys() == expected.values.keys()
    for name, value in found.values.items():
        torch.testing.assert_close(value.detach(), expected.values[name].detach(), rtol=accuracy, atol=0.0, msg=name)
    assert (found.distances is None) == (expected.distances is None)
    if found.distances is not None:
        torch.testing.assert_close(found.distances.detach(), expected.distances.detach(), rtol=accuracy, atol=0.0)


def likeness(a: Tensor, b: Tensor) -> float:
    return nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()


@pytest.mark.parametrize("terms", COMBINATIONS, ids="+".join)
def test_a_whole_batch_equals_plain_autograd(terms):
    images, targets = some_images(8)
    assert_same(gradient_of(terms)(images, targets), plain_evaluation(terms, images, targets), 1e-10)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("terms", COMBINATIONS, ids="+".join)
def test_chunks_equal_plain_autograd_on_the_whole_batch(terms, chunk_size):
    images, targets = some_images(8)
    assert_same(gradient_of(terms, chunk_size)(images, targets), plain_evaluation(terms, images, targets), 1e-10)


@pytest.mark.parametrize(("count", "chunk_size"), [(7, 1), (7, 2), (7, 3), (7, 6), (5, 4), (3, 2)])
def test_chunks_of_shares_that_are_no_binary_fractions_are_as_exact(count, chunk_size):
    images, targets = some_images(count)
    assert_same(gradient_of(ALL, chunk_size)(images, targets), gradient_of(ALL)(images, targets), 1e-10)


def test_chunks_that_were_each_a_batch_would_tell_something_else():
    # What the tests above would not see if all images were alike.
    images, targets = some_images(8)
    whole = gradient_of(ALL)(images, targets).gradient
    halves = [gradient_of(ALL)(images[rows], targets[rows]).gradient / 2 for rows in (slice(0, 4), slice(4, 8))]
    assert (whole - torch.cat(halves)).norm() > 0.05 * whole.norm()


def test_a_batch_of_one_image_has_statistics_too():
    images, targets = some_images(1)
    assert_same(gradient_of(ALL)(images, targets), plain_evaluation(ALL, images, targets), 1e-10)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_the_gradient_is_that_of_the_total(chunk_size):
    evaluate, (images, targets) = gradient_of(ALL, chunk_size), some_images(8)
    gradient = evaluate(images, targets).gradient
    random = torch.Generator().manual_seed(1)
    for _ in range(3):
        step = 1e-6 * torch.randn(images.shape, dtype=torch.float64, generator=random)
        slope = (evaluate(images + step, targets).total - evaluate(images - step, targets).total).item() / 2
        assert slope == pytest.approx((gradient * step).sum().item(), rel=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_evaluating_again_gives_the_same_and_leaves_the_images_as_they_are(chunk_size):
    evaluate, (images, targets) = gradient_of(ALL, chunk_size), some_images(8)
    kept = images.clone()
    first, other, again = (evaluate(x, targets) for x in (images, -images, images))
    assert torch.equal(first.gradient, again.gradient) and torch.equal(first.total, again.total)
    assert not torch.equal(first.gradient, other.gradient)
    assert torch.equal(images, kept) and not images.requires_grad and images.grad is None


def test_images_of_any_layout_and_kind_of_view_are_taken():
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    evaluate = gradient_of(("classification", "tv", "l2", "feature"), networks=(teacher, teacher))
    images = torch.randn(5, 3, 6, 7, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 3, 0])
    expected = evaluate(images, targets)
    for x in (images.contiguous(memory_format=torch.channels_last), images.flip(3).flip(3), images.requires_grad_()):
        assert_same(evaluate(x, targets), expected, 1e-12)


def test_the_layers_told_are_those_of_the_distances():
    assert gradient_of(("classification",)).layers == []
    evaluate = gradient_of(ALL)
    assert evaluate.layers == list(batch_norm_layers(tiny_network()))
    assert evaluate(*some_images(4)).distances.shape == (len(evaluate.layers),)


@pytest.mark.parametrize("chunk_size", [None, 5], ids=["whole", "chunks"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_points_the_same_way(dtype, chunk_size):
    images, targets = some_images(16, dtype=torch.float32)
    single = gradient_of(ALL, networks=singles())(images, targets)
    half = gradient_of(ALL, chunk_size, singles(), dtype)(images, targets)
    assert half.gradient.dtype == half.total.dtype == torch.float32
    assert likeness(half.gradient, single.gradient) > 0.99
    assert half.gradient.norm().item() == pytest.approx(single.gradient.norm().item(), rel=0.05)
    assert not torch.equal(half.gradient, single.gradient)
    assert half.total.item() == pytest.approx(single.total.item(), rel=0.02)
    for name, value in half.values.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(single.values[name].item(), rel=0.05), name
        if name in PRIOR:  # which no network has anything to do with
            assert value.item() == pytest.approx(single.values[name].item(), rel=1e-6), name


@pytest.mark.parametrize("chunk_size", [None, 400], ids=["whole", "chunks"])
def test_gradients_too_small_for_fp16_do_not_vanish(chunk_size):
    # The mean over images divides each one's gradient by their number, and fp16 ends at 6e-8.
    images, targets = some_images(2048, dtype=torch.float32)
    targets = tiny_network().eval()(images).argmax(1)  # the teacher is sure, so that little is left to pull
    single = gradient_of(("classification",), networks=singles())(images, targets).gradient
    half = gradient_of(("classification",), chunk_size, singles(), torch.float16)(images, targets).gradient
    sizes = single.flatten(1).norm(dim=1)
    smallest = sizes < sizes.quantile(0.1)
    assert sizes[smallest].max() < 1e-5
    assert likeness(half[smallest], single[smallest]) > 0.99


def test_every_term_is_tried():
    assert set(ALL) | set(FAST) | set(DAFL) == set(TERMS) == set(WEIGHTS)
