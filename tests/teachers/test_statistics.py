"""Statistics that a teacher keeps of a user's images: from files to what a generator gets, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import raydream
from raydream.config import TeacherConfig
from raydream.config.conversion import validate
from raydream.diagnosis import structure
from raydream.errors import InputError
from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.gathered import gather
from raydream.teachers.checkpoints import save_network
from raydream.teachers.loading import load_teacher
from raydream.teachers.normalization import Normalization
from raydream.teachers.teacher import Teacher, teacher_from_arrays, to_arrays
from tests.calls import call
from tests.tiny import WIDTH, tiny_network
from tests.unnormalized import TinyViT

NETWORK = "tests.unnormalized:TinyViT"


def pixels(count: int = 40, size: int = 8) -> np.ndarray:
    """Images as an .npz file has them, uint8 [N,H,W]."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)


@pytest.fixture
def config(tmp_path: Path) -> TeacherConfig:
    """The description of a tiny ViT with a checkpoint and images."""
    torch.manual_seed(0)
    save_network(TinyViT(), tmp_path / "vit.safetensors")
    np.savez(tmp_path / "images.npz", x=pixels())
    checkpoint, images = str(tmp_path / "vit.safetensors"), str(tmp_path / "images.npz")
    return TeacherConfig(network=NETWORK, checkpoint=checkpoint, statistics=images)


def test_a_teacher_keeps_the_statistics_of_the_normalized_images(config):
    teacher = load_teacher(config)
    images = Normalization(config.mean, config.std)(torch.from_numpy(pixels()[:, None]))
    expected = gather(load_teacher(replace(config, statistics="")).network, [images])
    layers = batch_norm_layers(teacher.network)
    assert [*layers] == [*expected] == ["norm_1", "norm_2", "norm"]
    for name, layer in layers.items():
        assert torch.allclose(torch.stack((layer.running_mean, layer.running_var)), expected[name], atol=1e-5)


def test_a_generator_and_a_resumed_run_have_them_without_the_images(config, tmp_path):
    teacher = load_teacher(config)
    assert teacher.fingerprint != load_teacher(replace(config, statistics="")).fingerprint, "which is in the recipe"
    save_network(teacher.network, tmp_path / "kept.safetensors")
    Path(config.statistics).unlink()
    assert teacher_from_arrays(config, to_arrays(teacher.network)).fingerprint == teacher.fingerprint
    kept = load_teacher(replace(config, checkpoint=str(tmp_path / "kept.safetensors")))
    assert kept.fingerprint == teacher.fingerprint


def test_other_images_make_another_teacher(config):
    one = load_teacher(config).fingerprint
    np.savez(config.statistics, x=255 - pixels())
    assert load_teacher(config).fingerprint != one


def test_images_of_another_size_are_resized(config):
    np.savez(config.statistics, x=pixels(20, 11))
    assert len(batch_norm_layers(load_teacher(config).network)) == 3


def inverted(teacher: Teacher) -> raydream.ImageSet:
    given = {"iterations": 3, "batch_size": 8, "precision": "fp32"}
    return raydream.synthesize(teacher, 8, "deep_inversion", synthesis=given)


def test_deep_inversion_takes_a_network_without_batch_normalization(config):
    described = {"input_shape": (1, 8, 8), "mean": (0.3,), "std": (0.35,), "classes": 10, "device": "cpu"}
    network = load_teacher(replace(config, statistics="")).network
    teacher = raydream.load_teacher(network, statistics=config.statistics, **described)
    (batch,) = inverted(teacher).batches()
    assert [*batch.provenance.distances] == ["norm_1", "norm_2", "norm"] and batch.provenance.losses["feature"] > 0
    with pytest.raises(InputError, match=r"teacher\.statistics"):
        inverted(raydream.load_teacher(network, **described))


def test_the_doctor_does_not_judge_the_normalization_by_them(config, monkeypatch):
    monkeypatch.setattr(structure, "_exported", lambda network, config: "yes")  # exporting takes seconds
    found = raydream.diagnose(load_teacher(config), pixels()[:, None], updates=0)
    assert [layer.name for layer in found.statistics] == ["norm_1", "norm_2", "norm"]
    assert found.fits == [] and found.estimate is None


BAD = {
    "nowhere": (lambda folder: [], "a .parquet file or a folder of these"),
    "empty": (lambda folder: (folder / "empty").mkdir(), "nothing is there"),
    "few.npz": (lambda folder: np.savez(folder / "few.npz", x=pixels(15)), "at least 16 images"),
    "none.npz": (lambda folder: np.savez(folder / "none.npz", y=np.zeros(20)), "a file with x"),
    "damaged.parquet": (lambda folder: (folder / "damaged.parquet").write_bytes(b"PAR1"), "files that can be read"),
    "words.txt": (lambda folder: (folder / "words.txt").write_text("images"), "the file is none of these"),
}


@pytest.mark.parametrize("name", BAD)
def test_images_that_cannot_be_used_are_refused_before_anything_starts(name, config, tmp_path):
    make, told = BAD[name]
    make(tmp_path)
    given = ["--teacher.network", NETWORK, "--data.name", "none", "--run-dir", tmp_path / "run"]
    for checkpoint in (config.checkpoint, None):
        trained = ["--teacher.checkpoint", checkpoint] if checkpoint else ["--data.name", "digits"]
        done = call("synthesize", *given, *trained, "--teacher.statistics", tmp_path / name)
        assert done.returncode == 2 and done.stderr.startswith("error: teacher.statistics = "), done.stderr
        assert told in done.stderr and done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_network_with_statistics_of_its_own_needs_no_images(config, tmp_path):
    save_network(tiny_network(), tmp_path / "tiny.safetensors")
    own = replace(config, network="digits", arguments={"width": WIDTH}, checkpoint=str(tmp_path / "tiny.safetensors"))
    with pytest.raises(InputError, match=r"^teacher\.statistics = .* empty for digits") as refused:
        load_teacher(own)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["PruneConfig", "QuantizeConfig", "ContinualConfig", "ReproduceConfig"])
def test_jobs_that_change_the_network_refuse_them(kind, config):
    extra = {"ContinualConfig": {"steps": [{"classes": [10]}]}, "ReproduceConfig": {"table": 1}}.get(kind, {})
    given = {"network": NETWORK, "checkpoint": config.checkpoint, "statistics": config.statistics}
    with pytest.raises(InputError, match=r"^teacher\.statistics = .* must be empty with this job"):
        validate(getattr(raydream.config, kind), {"teacher": given, **extra})
