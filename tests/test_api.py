"""The public API, as a notebook uses it: on a module of one's own, and on the handwritten digits."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import raydream
from raydream.config import TeacherConfig, TrainingConfig
from raydream.data.digits import load_digits
from raydream.errors import DivergenceError, InputError
from raydream.evaluation.latency import filters_of
from raydream.networks.digits import digits_network
from raydream.supervised.training import train_teacher
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import fingerprint, to_arrays
from tests.tiny import WIDTH, tiny_network

INPUT = {"input_shape": (1, 8, 8), "mean": [0.3], "std": [0.35], "classes": 10, "device": "cpu"}
SYNTHESIS = {"batch_size": 8, "iterations": 6, "jitter": 1, "precision": "fp32"}
STUDENT = {"batch_size": 8, "precision": "fp32"}
DIGITS = load_digits()


class Own(nn.Module):
    """Somebody's network, which nothing can build anew."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny_network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@pytest.fixture(scope="module")
def teacher() -> raydream.Teacher:
    return raydream.load_teacher(Own(), **INPUT)


@pytest.fixture(scope="module")
def images(teacher) -> raydream.ImageSet:
    return raydream.synthesize(teacher, 20, seed=3, synthesis=SYNTHESIS)


def weights(network: nn.Module) -> str:
    return fingerprint(to_arrays(network))


def test_a_module_becomes_a_teacher_and_stays_as_it_was():
    own = Own().train()
    before = weights(own)
    teacher = raydream.load_teacher(own, **INPUT)
    assert own.training and all(weight.requires_grad for weight in own.parameters()) and weights(own) == before
    assert not teacher.network.training and teacher.fingerprint == before and teacher.config.network == "Own"


def test_a_teacher_comes_by_name_and_checkpoint_too(tmp_path):
    save_network(tiny_network(), tmp_path / "weights.safetensors")
    path = str(tmp_path / "weights.safetensors")
    named = raydream.load_teacher("digits", arguments={"width": WIDTH}, checkpoint=path, **INPUT)
    into = raydream.load_teacher(tiny_network(seed=5), checkpoint=path, **INPUT)
    assert named.fingerprint == into.fingerprint == weights(tiny_network())


def test_images_have_targets_in_turn_and_what_the_teacher_says(teacher, images):
    assert images.images.shape == (20, 1, 8, 8) and images.images.dtype == np.uint8
    assert images.targets.tolist() == [*range(10), *range(10)]
    assert np.allclose(images.teacher_logits, teacher.logits(torch.from_numpy(images.images)).numpy(), atol=1e-5)
    image, target = images[13]
    assert torch.equal(image, torch.from_numpy(images.images[13])) and target == 3


def test_the_seed_decides(teacher, images):
    again, other = (raydream.synthesize(teacher, 20, seed=seed, synthesis=SYNTHESIS) for seed in (3, 4))
    assert np.array_equal(again.images, images.images) and not np.array_equal(other.images, images.images)


@pytest.mark.long
def test_generators_on_ray_make_the_same_images(tmp_path, cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    save_network(tiny_network(), tmp_path / "weights.safetensors")
    load = partial(raydream.load_teacher, "digits", arguments={"width": WIDTH}, **INPUT)
    named = load(checkpoint=str(tmp_path / "weights.safetensors"))
    here = raydream.synthesize(named, 20, synthesis=SYNTHESIS)
    run_dir = str(tmp_path / "run")
    there = raydream.synthesize(named, 20, synthesis=SYNTHESIS, generators=2, run_dir=run_dir)
    assert np.array_equal(here.images, there.images) and np.array_equal(here.teacher_logits, there.teacher_logits)
    with pytest.raises(InputError, match="new or empty"):
        raydream.synthesize(named, 20, synthesis=SYNTHESIS, generators=2, run_dir=run_dir)


def test_images_can_be_kept_and_opened_again(images, tmp_path):
    images.save(tmp_path / "some" / "images")
    again = raydream.ImageSet(tmp_path / "some" / "images")
    assert np.array_equal(again.images, images.images) and np.array_equal(again.targets, images.targets)


def test_a_student_competes_with_the_making_of_its_images(teacher):
    own, told = tiny_network(seed=1), []
    before = copy.deepcopy(own.state_dict())
    distill = partial(
        raydream.distill,
        teacher,
        synthesis={**SYNTHESIS, "coefficients": {"competition": 30.0}},
        student=STUDENT,
        rounds={"initial_batches": 2, "count": 1, "batches": 1, "final_steps": 3},
    )
    student, images = distill(own, on_progress=told.append)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert len(images) == 24 and student.fingerprint not in (weights(own), teacher.fingerprint)
    assert told == sorted(told) and told[-1] == 1.0
    assert weights(distill(own)[0].network) == weights(student.network)


def test_a_student_that_is_given_sets_out_from_its_own_weights(teacher, images):
    own = tiny_network(seed=1)
    student = {**STUDENT, "learning_rate": 1e-12, "weight_decay": 0.0}
    learned = raydream.transfer(teacher, images, own, epochs=1, student=student)
    for name, value in own.named_parameters():
        assert torch.allclose(learned.network.get_parameter(name), value, atol=1e-6)
    fresh = raydream.transfer(teacher, images, "digits", epochs=1, student={**student, "arguments": {"width": WIDTH}})
    assert not torch.allclose(fresh.network[0].weight, own[0].weight, atol=1e-3)


def test_a_student_that_diverges_is_an_error(teacher, images):
    with pytest.raises(DivergenceError, match=r"lower student\.learning_rate"):
        raydream.transfer(teacher, images, tiny_network(), epochs=3, student={**STUDENT, "learning_rate": 1e30})


def test_transfer_takes_arrays_and_tensors_as_it_takes_a_set(teacher, images):
    kinds = (images, images.images, torch.from_numpy(images.images))
    assert len({raydream.transfer(teacher, kind, tiny_network(), epochs=1).fingerprint for kind in kinds}) == 1


def test_pruning_takes_filters_away_and_rounds_of_images_compete_with_what_is_left(teacher, images):
    small = partial(
        raydream.prune,
        teacher,
        images,
        0.4,
        pruning={"steps": 2, "epochs": 1, "batches": 1},
        synthesis=SYNTHESIS,
        student=STUDENT,
    )
    left, more = small(), small(additions={"rounds": 1, "batches": 1, "epochs": 1})
    assert filters_of(left.network) < 0.65 * filters_of(teacher.network)
    assert filters_of(left.network) == filters_of(more.network) and left.fingerprint != more.fingerprint
    assert weights(teacher.network) == teacher.fingerprint


@pytest.mark.long
def test_quantizing_rounds_what_a_network_computes_with_and_writes_files(teacher, images, tmp_path):
    four = raydream.quantize(
        teacher, images, 4, 4, files=tmp_path / "files", quantization={"epochs": 1}, student=STUDENT
    )
    values = {len(layer.weight[0].unique()) for layer in four.network.modules() if isinstance(layer, nn.Conv2d)}
    assert min(values) <= 16 and four.config.network == "quantized"
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["student.onnx", "teacher.onnx"]
    assert weights(teacher.network) == teacher.fingerprint
    raydream.accuracy(four, DIGITS.test.images[:16], DIGITS.test.labels[:16])


@pytest.mark.parametrize("method", ["deep_inversion", "adaptive", "balanced", "abd", "lwf_mc", "finetune"])
def test_new_classes_join_the_old_ones(teacher, method):
    labels = np.arange(16) % 2 + 10
    wider = raydream.extend(
        teacher, DIGITS.train.images[:16], labels, method, images_per_class=1, epochs=2, synthesis=SYNTHESIS
    )
    assert wider.config.classes == 12
    assert wider.logits(torch.from_numpy(DIGITS.test.images[:3])).shape == (3, 12)
    raydream.accuracy(wider, DIGITS.test.images[:16], labels)
    with pytest.raises(InputError, match="from 0 to 11"):
        raydream.accuracy(wider, DIGITS.test.images[:16], labels + 1)


@pytest.mark.long
def test_the_digits_are_learned_from_images_alone():
    config = TeacherConfig(arguments={"width": WIDTH})
    network = train_teacher(config, TrainingConfig(epochs=15), DIGITS.train)
    teacher = raydream.load_teacher(network, **INPUT)
    synthesis = {
        "batch_size": 64,
        "iterations": 40,
        "learning_rate": 0.15,
        "decay": "cosine",
        "jitter": 1,
        "precision": "fp32",
        "coefficients": {"tv": 1e-3, "l2": 0.0, "feature": 3.0},
    }
    images = raydream.synthesize(teacher, 192, synthesis=synthesis)
    student = {"batch_size": 64, "precision": "fp32"}
    learned = raydream.transfer(teacher, images, digits_network(width=WIDTH), epochs=25, student=student)
    shares = [raydream.accuracy(each, DIGITS.test.images, DIGITS.test.labels) for each in (teacher, learned)]
    assert shares[0] > 0.95 and shares[1] > 0.6  # by chance 0.1
    pruned = raydream.prune(teacher, images, 0.3, pruning={"steps": 2, "epochs": 10, "batches": 2}, student=student)
    assert raydream.accuracy(pruned, DIGITS.test.images, DIGITS.test.labels) > 0.6


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


BAD = {
    "teacher.mean": lambda teacher, images: raydream.load_teacher(Own(), input_shape=(1, 8, 8), std=[1], classes=10),
    "teacher.std": lambda teacher, images: raydream.load_teacher(Own(), **{**INPUT, "std": [1.0, 1.0]}),
    "teacher.checkpoint": lambda teacher, images: raydream.load_teacher("digits", **INPUT),
    "teacher.classes": lambda teacher, images: raydream.load_teacher(Own(), **{**INPUT, "classes": 11}),
    "teacher.input_shape": lambda teacher, images: raydream.load_teacher(flat(), **{**INPUT, "input_shape": (1, 9, 9)}),
    "teacher.network": lambda teacher, images: raydream.load_teacher("run:nowhere"),
    "device": lambda teacher, images: raydream.load_teacher(Own(), **{**INPUT, "device": "tpu"}),
    "images": lambda teacher, images: raydream.synthesize(teacher, 0),
    "seed": lambda teacher, images: raydream.synthesize(teacher, seed=-1),
    "synthesis.iteration": lambda teacher, images: raydream.synthesize(teacher, synthesis={"iteration": 3}),
    "synthesis.method": lambda teacher, images: raydream.synthesize(raydream.load_teacher(flat(), **INPUT)),
    "synthesis.targets.classes": lambda teacher, images: raydream.synthesize(
        teacher, synthesis={"targets": {"rule": "listed", "classes": [10]}}
    ),
    "generators": lambda teacher, images: raydream.synthesize(teacher, generators=2),
    "rounds.count": lambda teacher, images: raydream.distill(
        teacher, tiny_network(), synthesis=SYNTHESIS, samples_per_insert=1.0
    ),
    "student.network": lambda teacher, images: raydream.transfer(teacher, images, nn.Linear(3, 2)),
    "student.learning_rate": lambda teacher, images: raydream.transfer(
        teacher, images, tiny_network(), student={"learning_rate": 0}
    ),
    "epochs": lambda teacher, images: raydream.transfer(teacher, images, tiny_network(), epochs=0),
    "images ": lambda teacher, images: raydream.transfer(teacher, images.images / 255, tiny_network()),
    "images  ": lambda teacher, images: raydream.accuracy(teacher, np.zeros((2, 3, 8, 8), np.uint8), [0, 1]),
    "pruning.ratio": lambda teacher, images: raydream.prune(teacher, images, 1.0),
    "quantization.weights": lambda teacher, images: raydream.quantize(teacher, images, 1),
    "quantization.keep": lambda teacher, images: raydream.quantize(teacher, images, quantization={"keep": "none"}),
    "method": lambda teacher, images: raydream.extend(teacher, images, [10] * 20, "oracle_distill"),
    "labels": lambda teacher, images: raydream.extend(teacher, images, [9] * 20),
    "labels ": lambda teacher, images: raydream.extend(teacher, images, [11] * 20),
    "labels  ": lambda teacher, images: raydream.accuracy(teacher, images, [0]),
    "student.ema": lambda teacher, images: raydream.extend(teacher, images, [10] * 20, student={"ema": 0.9}),
}


@pytest.mark.parametrize("field", BAD)
def test_bad_input_is_one_sentence_that_names_the_field(field, teacher, images):
    with pytest.raises(InputError) as caught:
        BAD[field](teacher, images)
    assert str(caught.value).startswith(f"{field.strip()} = "), str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_package_offers_what_it_lists():
    assert set(raydream.__all__) <= set(dir(raydream))
    for name in raydream.__all__:
        assert getattr(raydream, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        raydream.nothing  # noqa: B018


def test_it_is_typed():
    assert (Path(raydream.__file__).parent / "py.typed").exists()
