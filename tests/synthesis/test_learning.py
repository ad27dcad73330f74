"""Synthesizers that learn from batch to batch: DAFL and the fast generator."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.config import SynthesisConfig
from raydream.errors import SynthesisError
from raydream.losses.divergences import masked_kl
from raydream.networks.batch_norm import batch_norm_layers
from raydream.seeds import derive_seed
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.synthesis.generator_network import fresh_network
from raydream.synthesis.view import draw_crops
from tests.tiny import tiny_student, tiny_synthesis, tiny_targets, tiny_teacher

LEARNING = ["dafl", "fast", "noisy"]
GENERATOR = {"latent": 6, "width": 4, "learning_rate": 0.01, "code_learning_rate": 0.05}


def config_of(method: str, **changes: object) -> SynthesisConfig:
    return tiny_synthesis(**{"method": method, "generator": GENERATOR, "iterations": 5, **changes})


def request_of(seed: int, student: nn.Module | None = None) -> Request:
    return Request(tiny_targets(), seed, student)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("method", LEARNING)
def test_a_batch_depends_on_the_state_and_the_request_alone(method):
    kept = SYNTHESIZERS[method](tiny_teacher(), config_of(method))
    for seed in range(3):
        state = kept.state_dict()
        other = SYNTHESIZERS[method](tiny_teacher(), config_of(method))
        other.load_state_dict(state)
        untouched = {name: value.clone() for name, value in state.items()}
        made, again = kept.synthesize(request_of(seed)), other.synthesize(request_of(seed))
        assert torch.equal(made.images, again.images) and made.curve == again.curve
        assert same(kept.state_dict(), other.state_dict()) and not same(kept.state_dict(), state)
        assert same(state, untouched), "what was handed over has been changed"
    fresh = SYNTHESIZERS[method](tiny_teacher(), config_of(method))
    assert fresh.state_dict() == {} and not torch.equal(fresh.synthesize(request_of(2)).images, made.images)


@pytest.mark.parametrize("method", LEARNING)
def test_what_is_learned_lowers_the_losses_of_the_next_batches(method):
    config = config_of(method, iterations=10, jitter=0)
    weights = config.coefficients

    def first_total(synthesizer, seed: int) -> float:
        curve = synthesizer.synthesize(request_of(seed)).curve
        return sum(getattr(weights, name) * points[0][1] for name, points in curve.items())

    learner, teacher = SYNTHESIZERS[method](tiny_teacher(), config), tiny_teacher()
    for seed in range(6):
        learner.synthesize(request_of(seed))
    ahead = sum(first_total(learner, seed) for seed in range(6, 9))
    fresh = sum(first_total(SYNTHESIZERS[method](teacher, config), seed) for seed in range(6, 9))
    assert ahead < fresh - 1.0


def test_dafl_is_the_algorithm_as_one_reads_it():
    teacher, config = tiny_teacher(), config_of("dafl", jitter=0)
    canvas, from_canvas = teacher.normalization.canvas(), teacher.normalization.from_canvas()
    synthesizer = SYNTHESIZERS["dafl"](teacher, config)
    network = fresh_network(config.generator, teacher, derive_seed(3, "generator network"))
    optimizer, head = torch.optim.Adam(network.parameters(), 0.01), teacher.network[-1]
    for seed in (3, 4):  # the second batch continues with the moments of the first
        made, random = synthesizer.synthesize(request_of(seed)), torch.Generator().manual_seed(seed)
        for _ in range(config.iterations):
            features = teacher.network[:-1](network(torch.randn(8, 6, generator=random)) * from_canvas)
            logits = head(features)
            mean = logits.softmax(1).mean(0)
            loss = functional.cross_entropy(logits, logits.argmax(1))
            loss = loss - 0.1 * features.abs().mean() + 5.0 * (mean * mean.log()).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            expected = canvas.quantize(network(torch.randn(8, 6, generator=random)))
        assert int((made.images.int() - expected.int()).abs().max()) <= 1
        assert torch.equal(made.targets, teacher.logits(made.images).argmax(1))


Average = list[tuple[Tensor, Tensor]]


def smoothed_by_hand(
    network: nn.Module, x: Tensor, average: Average, momentum: float
) -> tuple[Tensor, Tensor, Average]:
    """The logits, the sum of all layers' distances, and what was compared: momentum * average + the rest * batch."""
    layers, entered = list(batch_norm_layers(network).values()), []
    handles = [layer.register_forward_pre_hook(lambda layer, inputs: entered.append(inputs[0])) for layer in layers]
    logits = network(x)
    for handle in handles:
        handle.remove()
    distance, compared = torch.zeros(()), []
    for index, (layer, values) in enumerate(zip(layers, entered, strict=True)):
        flat = values.transpose(0, 1).flatten(1)
        mean = flat.mean(1)
        variance = (flat - mean[:, None]).square().mean(1)
        if average:
            mean = momentum * average[index][0] + (1.0 - momentum) * mean
            variance = momentum * average[index][1] + (1.0 - momentum) * variance
        distance = distance + (mean - layer.running_mean).norm() + (variance - layer.running_var).norm()
        compared.append((mean.detach(), variance.detach()))
    return logits, distance, compared


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("with_student", [False, True])
def test_fast_is_the_algorithm_as_one_reads_it(with_student, momentum):
    teacher = tiny_teacher()
    config = config_of("fast", flip=True, generator={**GENERATOR, "statistics_momentum": momentum})
    canvas, from_canvas = teacher.normalization.canvas(), teacher.normalization.from_canvas()
    synthesizer, student = SYNTHESIZERS["fast"](teacher, config), tiny_student() if with_student else None
    meta = fresh_network(config.generator, teacher, derive_seed(3, "generator network")).state_dict()
    average: Average = []
    for seed in (3, 4, 6):  # with 5, a change of 1e-6 in what the networks see turns one of Adam's steps round
        made = synthesizer.synthesize(request_of(seed, student))
        random = torch.Generator().manual_seed(seed)
        codes = torch.randn(8, 6, generator=random).requires_grad_()
        network = fresh_network(config.generator, teacher, 0)
        network.load_state_dict(meta)
        betas = (0.5, 0.999)
        optimizers = [torch.optim.Adam(network.parameters(), 0.01, betas), torch.optim.Adam([codes], 0.05, betas)]
        for _ in range(config.iterations):
            view = draw_crops((8, 8, 8), config.jitter, config.flip, canvas.valid_range()[0], random)
            images = view(network(codes)) * from_canvas
            logits, distances, compared = smoothed_by_hand(teacher.network, images, average, momentum)
            loss = functional.cross_entropy(logits, tiny_targets()) + 10.0 * distances
            if student is not None:
                loss = loss + 1.33 * masked_kl(logits, student(images))
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
        with torch.no_grad():
            expected = canvas.quantize(network(codes))
        assert int((made.images.int() - expected.int()).abs().max()) <= 1 and made.targets is None
        assert ("masked_kl" in made.losses) == with_student
        learned = synthesizer.state_dict()
        kept = [row.split([len(mean) for mean, _ in compared]) for row in learned["statistics"]]
        average = list(zip(*kept, strict=True))  # moves once a batch, by the statistics of its last update
        torch.testing.assert_close(average, compared, rtol=1e-3, atol=1e-3)
        for name, value in network.state_dict().items():
            # fp32 sums in another order, which Adam makes much of where a gradient is nearly zero.
            near = (0.5 * (meta[name] + value) - learned[f"network.{name}"]).abs() <= 1e-4
            assert near.float().mean() > 0.98, name
            meta[name] = learned[f"network.{name}"]  # as the next batch makes much of the last bits


def test_without_a_feature_term_no_statistics_are_learned():
    weights = {"feature": 0.0, "classification": 1.0}
    synthesizer = SYNTHESIZERS["fast"](tiny_teacher(), config_of("fast", coefficients=weights))
    for seed in range(2):
        synthesizer.synthesize(request_of(seed))
    assert all(name.startswith("network.") for name in synthesizer.state_dict())


@pytest.mark.parametrize("method", LEARNING)
def test_the_schedule_of_pixels_is_none_of_a_generator_network(method):
    plain = SYNTHESIZERS[method](tiny_teacher(), config_of(method)).synthesize(request_of(0))
    pixels = {"decay": "cosine", "warm_up": 3, "betas": (0.3, 0.7), "learning_rate": 9.0}
    scheduled = SYNTHESIZERS[method](tiny_teacher(), config_of(method, **pixels)).synthesize(request_of(0))
    assert torch.equal(plain.images, scheduled.images) and plain.curve == scheduled.curve
    others = SYNTHESIZERS[method](tiny_teacher(), config_of(method, generator={**GENERATOR, "betas": (0.3, 0.7)}))
    assert others.synthesize(request_of(0)).curve != plain.curve


def test_an_outer_rate_of_1_goes_on_where_the_last_batch_ended():
    rates = {}
    for rate in (0.25, 1.0):
        config = config_of("fast", generator={**GENERATOR, "outer_rate": rate})
        synthesizer = SYNTHESIZERS["fast"](tiny_teacher(), config)
        synthesizer.synthesize(request_of(0))
        rates[rate] = synthesizer.state_dict()
    start = fresh_network(config.generator, tiny_teacher(), derive_seed(0, "generator network")).state_dict()
    for name, value in start.items():
        end, quarter = rates[1.0][f"network.{name}"], rates[0.25][f"network.{name}"]
        assert torch.allclose(quarter - value, 0.25 * (end - value), atol=1e-6), name


class Diverges(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) * (float("nan") if len(x) > 1 else 1.0)


@pytest.mark.parametrize("method", LEARNING)
def test_what_diverges_leaves_the_state_as_it_was(method):
    teacher = tiny_teacher()
    synthesizer = SYNTHESIZERS[method](teacher, config_of(method))
    synthesizer.synthesize(request_of(0))
    failing = SYNTHESIZERS[method](replace(teacher, network=Diverges(teacher.network).eval()), config_of(method))
    failing.load_state_dict(synthesizer.state_dict())
    with pytest.raises(SynthesisError, match=r"diverged 4 times.*learning_rate \(0\.01\)"):
        failing.synthesize(request_of(1))
    assert same(failing.state_dict(), synthesizer.state_dict())


@pytest.mark.parametrize("method", LEARNING)
def test_a_batch_in_chunks_is_the_batch_at_once(method):
    at_once, in_chunks = (
        SYNTHESIZERS[method](tiny_teacher(), config_of(method, chunk_size=size)).synthesize(request_of(0))
        for size in (None, 3)
    )
    assert in_chunks.losses == pytest.approx(at_once.losses, rel=1e-3)
    assert float(((at_once.images.int() - in_chunks.images.int()).abs() <= 1).double().mean()) > 0.97
