"""A whole quantization without Ray: that it recovers, and that it resumes exactly where it was stopped."""

import copy
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raydream.applications.calibration_sources import noise_images, synthesized_images
from raydream.applications.quantizing import (
    CHECKPOINT,
    Quantizing,
    RecoveryStage,
    StageReport,
    bits_of,
    calibration_rows,
    described,
    stages_of,
    total_steps,
)
from raydream.config import AdditionsConfig, QuantizationConfig, QuantizeConfig, StudentConfig
from raydream.evaluation.data_free import agreement
from raydream.networks import build_teacher
from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.quantized import quantizers_of
from raydream.store.folders import LocalFolder
from raydream.store.shards import ShardStore
from tests.tiny import tiny_synthesis, tiny_teacher

SHAPE = (1, 8, 8)
ADDITIONS = AdditionsConfig(rounds=2, batches=2, epochs=2)


def config_of(additions: AdditionsConfig | None = None, **changes: object) -> QuantizeConfig:
    quantization = {"weights": 3, "activations": 3, "method": "distillation", "epochs": 3, **changes}
    return QuantizeConfig(
        images="somewhere",
        seed=7,
        teacher=replace(tiny_teacher().config, checkpoint="somewhere"),
        quantization=QuantizationConfig(**quantization),
        additions=additions or AdditionsConfig(),
        synthesis=tiny_synthesis(),
        student=StudentConfig(network="teacher", batch_size=16, learning_rate=0.01, precision="fp32"),
    )


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)


def quantized(config: QuantizeConfig, images: np.ndarray, **given: object) -> torch.nn.Module:
    return Quantizing(config, tiny_teacher(), images, **given).run()


def assert_equal(one: torch.nn.Module, other: torch.nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_stages_follow_from_the_configuration():
    assert stages_of(config_of(AdditionsConfig(rounds=1, epochs=4))) == [
        RecoveryStage("calibrate", 0),
        RecoveryStage("distill", 0, 3, "cosine"),
        RecoveryStage("add", 0),
        RecoveryStage("distill", 1, 4, "cosine"),
    ]
    assert stages_of(config_of(method="post_training")) == [RecoveryStage("calibrate", 0)]
    assert total_steps(config_of(ADDITIONS), 40) == 3 * 3 + 2 * 4 + 2 * 5


def test_first_and_last_layer_have_eight_bits_and_kept_ones_none():
    names = list(bits_of(config_of(), tiny_teacher()))
    bits = bits_of(config_of(weights=3, activations=4, keep=names[2]), tiny_teacher())
    assert bits[names[0]] == bits[names[-1]] == (8, 8) and bits[names[1]] == (3, 4) and names[2] not in bits


def test_post_training_changes_no_weight(images):
    told: list[StageReport] = []
    network = quantized(config_of(method="post_training"), images, report=told.append)
    assert [each.stage.kind for each in told] == ["calibrate"] and not network.training
    original = tiny_teacher().network.state_dict()
    kept = {
        name.replace("parametrizations.weight.original", "weight"): each for name, each in network.state_dict().items()
    }
    assert all(torch.equal(value, kept[name]) for name, value in original.items())
    assert len(quantizers_of(network)) == len(bits_of(config_of(), tiny_teacher()))


def test_distillation_recovers_what_rounding_lost(images):
    losses: list[float] = []
    trained = quantized(config_of(epochs=40), images, report=lambda told: losses.extend(told.losses))
    teacher = tiny_teacher()
    before = agreement(teacher, quantized(config_of(method="post_training"), images), images)
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert agreement(teacher, trained, images) > before


def test_steps_and_weights_learn(images):
    start = quantized(config_of(method="post_training"), images)
    end = quantized(config_of(), images)
    for name, (weights, inputs) in quantizers_of(end).items():
        first = quantizers_of(start)[name]
        assert not torch.equal(weights.step, first[0].step) and not torch.equal(inputs.step, first[1].step)
        assert torch.equal(weights.low, first[0].low) and torch.equal(inputs.high, first[1].high)


@pytest.mark.parametrize(("frozen", "moving"), [(0.0, []), (0.5, [0, 1]), (1.0, [0, 1, 2])])
def test_statistics_stay_after_a_share_of_the_steps(frozen, moving, images):
    teacher = tiny_teacher()
    means = [torch.cat([layer.running_mean for layer in batch_norm_layers(teacher.network).values()])]

    def tell(told: StageReport) -> None:
        if told.stage.kind == "distill":
            means.append(torch.cat([layer.running_mean for layer in batch_norm_layers(told.network).values()]).clone())

    quantized(config_of(frozen=frozen), images, report=tell)  # 3 epochs of 3 steps: half of them are 4
    assert [index for index in range(3) if not torch.equal(means[index], means[index + 1])] == moving


def test_the_teacher_is_left_alone(images):
    teacher = tiny_teacher()
    Quantizing(config_of(), teacher, images).run()
    assert_equal(teacher.network, tiny_teacher().network)
    assert not teacher.network.training and not any(weight.requires_grad for weight in teacher.network.parameters())


def test_the_seed_decides(images):
    one = quantized(config_of(), images)
    assert_equal(one, quantized(config_of(), images))
    other = quantized(replace(config_of(), seed=8), images).state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in one.state_dict().items())


class Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adamw", marks=pytest.mark.long)])
def test_a_run_resumes_where_it_was_stopped(optimizer, images, tmp_path):
    """Stopped after each thing that it tells, one after the other, a checkpoint of which may be missing."""
    config = config_of(ADDITIONS)
    config = replace(config, student=replace(config.student, optimizer=optimizer))
    whole, told = [], []
    expected = quantized(config, images, store=ShardStore(tmp_path / "whole"), report=whole.append)

    for count in range(1, 100):
        left = count

        def tell(each: StageReport) -> None:
            nonlocal left
            told.append(each)
            left -= 1
            if not left:
                raise Stopped

        folder, store = LocalFolder(tmp_path / "stopped"), ShardStore(tmp_path / "images")
        try:
            network = quantized(config, images, folder=folder, store=store, report=tell)
            break
        except Stopped:
            pass
    assert count > 3
    assert_equal(network, expected)
    assert len(store.committed()) == 4 and not any(each.note for each in told)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from raydream.applications.quantizing import Quantizing
from raydream.store.folders import LocalFolder
from tests.applications.test_quantizing import config_of
from tests.tiny import tiny_teacher

def on_work(step):
    if step == 14:  # in the middle of the fifth of ten epochs
        os.kill(os.getpid(), signal.SIGKILL)

images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
Quantizing(config_of(epochs=10), tiny_teacher(), images, LocalFolder(Path(sys.argv[1])), on_work=on_work).run()
"""


def test_a_killed_process_leaves_what_another_resumes_to_the_bit(images, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": paths}, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    steps: list[int] = []
    network = quantized(config_of(epochs=10), images, folder=LocalFolder(tmp_path), on_work=steps.append)
    assert steps[0] == 13  # the first step after the last epoch that was complete
    assert_equal(network, quantized(config_of(epochs=10), images))


def test_a_finished_run_has_nothing_left_to_do(images, tmp_path):
    folder, told = LocalFolder(tmp_path / "kept"), []
    one = quantized(config_of(), images, folder=folder)
    assert_equal(one, quantized(config_of(), images, folder=folder, report=told.append))
    assert not told and [path.name for path in (tmp_path / "kept").iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize("damage", [lambda whole: whole[:1000], lambda whole: whole[:-9] + b"x" + whole[-8:]])
def test_a_damaged_checkpoint_is_quarantined(damage, images, tmp_path):
    folder, told = LocalFolder(tmp_path / "kept"), []
    one = quantized(config_of(), images, folder=folder)
    path = tmp_path / "kept" / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    assert_equal(one, quantized(config_of(), images, folder=folder, report=told.append))
    assert "quantizing starts over" in told[0].note and len(list((tmp_path / "kept").iterdir())) == 2


def test_added_images_compete_with_the_quantized_network(images, tmp_path):
    store, told = ShardStore(tmp_path / "images"), []
    quantized(config_of(AdditionsConfig(rounds=1, batches=2, epochs=1)), images, store=store, report=told.append)
    (step,) = [each.step for each in told if each.stage.kind == "add"]
    for batch in store.committed():
        made = store.read(batch)
        assert made.provenance.student_step == step == 9 and made.provenance.method == "adaptive"
        assert "competition" in made.provenance.losses


def test_a_description_builds_the_network(images):
    config = config_of()
    network = quantized(config, images)
    bits = bits_of(config, tiny_teacher())
    rebuilt = build_teacher(described(config.teacher, bits)).eval()
    rebuilt.load_state_dict(network.state_dict())
    x = torch.randn(3, *SHAPE)
    assert torch.equal(rebuilt(x), network(x))
    assert_equal(copy.deepcopy(network), network)


@pytest.mark.parametrize(
    ("count", "most", "rows"), [(5, 8, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (9, 1, [0]), (1, 1, [0])]
)
def test_calibration_images_are_spread_over_all(count, most, rows):
    assert calibration_rows(count, most).tolist() == rows


def test_noise_is_normal_as_the_network_sees_it():
    teacher = tiny_teacher()
    noise = noise_images(teacher, 500, seed=3)
    assert noise.dtype == np.uint8 and noise.shape == (500, *SHAPE)
    seen = teacher.normalization(torch.from_numpy(noise))
    low, high = (float(each) for each in teacher.normalization.valid_range())
    expected = torch.randn(100_000).clamp(low, high)
    assert abs(float(seen.mean() - expected.mean())) < 0.03 and abs(float(seen.std() - expected.std())) < 0.03
    assert np.array_equal(noise, noise_images(teacher, 500, seed=3))
    assert not np.array_equal(noise, noise_images(teacher, 500, seed=4))


@pytest.mark.parametrize("method", ["deep_inversion", "deepdream"])
def test_synthesized_images_are_kept_and_found(method, tmp_path):
    store, works = ShardStore(tmp_path / "images"), []
    made = synthesized_images(tiny_teacher(), tiny_synthesis(), method, 20, 1, store, lambda: works.append(1))
    assert made.shape == (20, *SHAPE) and works
    assert [len(store.read(batch)) for batch in store.committed()] == [7, 7, 6]
    assert {store.read(batch).provenance.method for batch in store.committed()} == {method}
    works.clear()
    assert np.array_equal(made, synthesized_images(tiny_teacher(), tiny_synthesis(), method, 20, 1, store))
    assert not works
