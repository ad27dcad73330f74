"""The noisy-layer generator; what it shares with other synthesizers that learn is in test_learning.py."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.config import SynthesisConfig, TeacherConfig
from raydream.errors import InputError
from raydream.losses.divergences import masked_kl
from raydream.seeds import derive_seed
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.synthesis.checks import check_network
from raydream.synthesis.embeddings import class_embeddings
from raydream.synthesis.generator_network import fresh_network
from raydream.synthesis.noisy import NoisyLayer
from raydream.synthesis.view import draw_crops
from tests.synthesis.test_learning import Average, smoothed_by_hand
from tests.tiny import tiny_network, tiny_student, tiny_synthesis, tiny_targets, tiny_teacher

GENERATOR = {"latent": 6, "width": 4, "learning_rate": 0.01}


def config_of(**changes: object) -> SynthesisConfig:
    generator = {**GENERATOR, **changes.pop("generator", {})}  # type: ignore[dict-item]
    return tiny_synthesis(**{"method": "noisy", "generator": generator, "iterations": 4, **changes})


def by_hand(
    network: nn.Module,
    student: nn.Module | None,
    embeddings: Tensor,
    average: Average,
    random: torch.Generator,
    config: SynthesisConfig,
) -> tuple[Tensor, Average]:
    """One batch of targets 0 to 7 and 0 to 2, written out: its images on the canvas, and the statistics at its end."""
    teacher = tiny_teacher()
    low, from_canvas = teacher.normalization.canvas().valid_range()[0], teacher.normalization.from_canvas()
    targets = torch.tensor([*range(8), 0, 1, 2])
    maps = torch.randn(2 * 6, embeddings.shape[1], generator=random)
    weights = [maps[:6].clone().requires_grad_(), maps[6:].clone().requires_grad_()]
    biases = [torch.zeros(6, requires_grad=True) for _ in weights]
    optimizer = torch.optim.Adam([*network.parameters(), *weights, *biases], 0.01, (0.5, 0.999))
    best, kept, compared = float("inf"), None, average
    for _ in range(config.iterations):
        codes = [weights[index // 8] @ embeddings[y] + biases[index // 8] for index, y in enumerate(targets)]
        images = network(torch.stack(codes))
        seen = draw_crops((11, 8, 8), config.jitter, config.flip, low, random)(images) * from_canvas
        logits, distance, compared = smoothed_by_hand(teacher.network, seen, average, 0.9)
        loss = 0.5 * functional.cross_entropy(logits, targets) + 10.0 * distance
        if student is not None:
            loss = loss + 1.33 * masked_kl(logits, student(seen))
        if loss.item() < best:
            best, kept = loss.item(), images.detach().clone()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert kept is not None
    return kept, compared


@pytest.mark.parametrize("with_student", [False, True])
def test_it_is_the_algorithm_as_one_reads_it(with_student):
    teacher, student = tiny_teacher(), tiny_student() if with_student else None
    config = config_of(flip=True, coefficients={"classification": 0.5})
    rows = teacher.network[-1].weight.detach()
    embeddings = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()
    targets, canvas = torch.tensor([*range(8), 0, 1, 2]), teacher.normalization.canvas()
    synthesizer, average = SYNTHESIZERS["noisy"](teacher, config), []
    network = fresh_network(config.generator, teacher, derive_seed(3, "generator network"))
    for seed in (3, 4):
        made = synthesizer.synthesize(Request(targets, seed, student))
        random = torch.Generator().manual_seed(seed)
        expected, average = by_hand(network, student, embeddings, average, random, config)
        assert float(((made.images.int() - canvas.quantize(expected).int()).abs() <= 1).double().mean()) > 0.98
        assert made.targets is None and ("masked_kl" in made.losses) == with_student
        learned = synthesizer.state_dict()
        assert set(learned) == {f"network.{name}" for name in network.state_dict()} | {"batches", "statistics"}
        kept = [row.split([len(mean) for mean, _ in average]) for row in learned["statistics"]]
        torch.testing.assert_close(list(zip(*kept, strict=True)), average, rtol=1e-3, atol=1e-3)


def test_the_images_are_those_of_the_update_with_the_lowest_loss():
    teacher, config = tiny_teacher(), config_of(jitter=0, generator={"learning_rate": 5.0})
    synthesizer = SYNTHESIZERS["noisy"](teacher, config)
    made, weights = synthesizer.synthesize(Request(tiny_targets(), 3)), config.coefficients
    feature, classes = (dict(made.curve[name]) for name in ("feature", "classification"))
    totals = [weights.feature * feature[update] + weights.classification * classes[update] for update in feature]
    assert totals.index(min(totals)) == 0, "the first update's, of whose images all is known"
    network = fresh_network(config.generator, teacher, derive_seed(3, "generator network"))
    standardized = functional.batch_norm(
        class_embeddings(teacher.network, teacher.config, "classifier"), None, None, training=True
    )
    layer = NoisyLayer(standardized, tiny_targets(), 6, torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = teacher.normalization.canvas().quantize(network(layer()))
    assert int((made.images.int() - expected.int()).abs().max()) <= 1


def test_no_two_images_of_a_batch_have_one_code_and_classes_share_their_maps():
    embeddings, targets = torch.randn(4, 3), torch.tensor([2, 0, 2, 2, 3, 0])
    layer = NoisyLayer(embeddings, targets, 5, torch.Generator().manual_seed(0))
    weights, codes = layer.weight.view(3, 5, 3), layer()
    for row, (target, earlier) in enumerate(zip([2, 0, 2, 2, 3, 0], [0, 0, 1, 2, 0, 1], strict=True)):
        assert torch.allclose(codes[row], weights[earlier] @ embeddings[target], atol=1e-6)
    assert len(torch.unique(codes, dim=0)) == 6
    assert 0.5 < layer.weight.std().item() < 1.5 and not layer.bias.any()


def test_the_network_starts_from_scratch_every_so_many_batches_and_the_statistics_stay():
    config = config_of(generator={"restart_batches": 2})
    synthesizer = SYNTHESIZERS["noisy"](tiny_teacher(), config)
    known = []
    for seed in range(5):
        synthesizer.synthesize(Request(tiny_targets(), seed))
        known.append({name.partition(".")[0] for name in synthesizer.state_dict()})
    assert known == [{"network", "batches", "statistics"}, {"statistics"}] * 2 + [{"network", "batches", "statistics"}]


def test_a_network_that_starts_from_scratch_follows_from_the_seed_and_the_statistics():
    config = config_of(generator={"restart_batches": 1})
    kept = SYNTHESIZERS["noisy"](tiny_teacher(), config)
    kept.synthesize(Request(tiny_targets(), 0))
    other = SYNTHESIZERS["noisy"](tiny_teacher(), config)
    other.load_state_dict(kept.state_dict())
    one, again = (each.synthesize(Request(tiny_targets(), 1)) for each in (kept, other))
    assert torch.equal(one.images, again.images) and one.curve == again.curve
    without = SYNTHESIZERS["noisy"](tiny_teacher(), config).synthesize(Request(tiny_targets(), 1))
    assert without.curve != one.curve


def test_embeddings_are_rows_of_the_last_layer_or_of_the_identity_or_of_a_file(tmp_path):
    network, config = tiny_network(), tiny_teacher().config
    assert torch.equal(class_embeddings(network, config, "classifier"), network[-1].weight.detach())
    assert torch.equal(class_embeddings(network, config, "orthogonal"), torch.eye(10))
    rows = np.random.default_rng(0).standard_normal((10, 7)).astype(np.float16)
    np.save(tmp_path / "text.npy", rows)
    assert np.array_equal(
        class_embeddings(network, config, str(tmp_path / "text.npy")).numpy(), rows.astype(np.float32)
    )


def test_each_source_of_embeddings_makes_other_images(tmp_path):
    np.save(tmp_path / "text.npy", np.random.default_rng(0).standard_normal((10, 7)))
    curves = []
    for source in ("classifier", "orthogonal", str(tmp_path / "text.npy")):
        synthesizer = SYNTHESIZERS["noisy"](tiny_teacher(), config_of(generator={"embeddings": source}))
        curves.append(synthesizer.synthesize(Request(tiny_targets(), 0)).curve["classification"])
    assert len({tuple(curve) for curve in curves}) == 3


BAD_FILES = {
    "nine rows": (np.zeros((9, 4)), r"holds float64 \(9, 4\)"),
    "one row": (np.zeros(10), r"holds float64 \(10,\)"),
    "text": (np.full((10, 2), "a"), "holds <U1"),
    "NaN": (np.full((10, 2), np.nan), "NaN or infinity"),
    "objects": (np.full((10, 2), None), "allow_pickle"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_of_embeddings_is_checked_with_the_network(case, tmp_path):
    content, says = BAD_FILES[case]
    np.save(tmp_path / "bad.npy", content)
    config = config_of(generator={"embeddings": str(tmp_path / "bad.npy")})
    with pytest.raises(InputError, match=says) as refused:
        check_network(tiny_network(), tiny_teacher().config, config, trained=True)
    assert refused.value.field == "synthesis.generator.embeddings" and "10 rows" in str(refused.value.allowed)


def test_a_missing_file_and_an_archive_are_no_embeddings(tmp_path):
    np.savez(tmp_path / "many.npz", np.zeros((10, 2)))
    (tmp_path / "empty.npy").touch()
    for name in ("none.npy", "many.npz", "empty.npy"):
        with pytest.raises(InputError, match=name):
            class_embeddings(tiny_network(), tiny_teacher().config, str(tmp_path / name))


def test_a_network_without_a_last_layer_needs_other_embeddings():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten())
    with pytest.raises(InputError, match="orthogonal"):
        class_embeddings(network, TeacherConfig(), "classifier")
    assert class_embeddings(network, TeacherConfig(), "orthogonal").shape == (10, 10)
