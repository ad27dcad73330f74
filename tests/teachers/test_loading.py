"""Teachers from every source: the project's networks, torchvision's, timm's and one's own."""

import hashlib
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from raydream.config import DataConfig, TeacherConfig, TrainingConfig
from raydream.errors import InputError
from raydream.networks import NETWORKS, build_network
from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.digits import digits_network
from raydream.store.downloads import cached_path
from raydream.supervised.library import trained_teacher
from raydream.teachers.loading import library_path, load_teacher
from raydream.teachers.teacher import fingerprint, to_arrays
from tests.tiny import WIDTH

CONFIG = TeacherConfig(arguments={"width": WIDTH})
HEADED = ("googlenet", "inception_v3")


def described(network: str, checkpoint: object, classes: int = 10, channels: int = 3, **arguments) -> TeacherConfig:
    """A teacher of images 32x32."""
    return TeacherConfig(
        network=network,
        arguments=arguments,
        checkpoint=str(checkpoint),
        input_shape=(channels, 32, 32),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        classes=classes,
    )


def randomised(network: nn.Module, seed: int = 3) -> nn.Module:
    """The network in eval mode, with weights and BN statistics that no fresh network has."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.copy_(0.05 * torch.rand(value.shape, generator=random) + 0.5 if value.is_floating_point() else 7)
    return network.eval()


def is_frozen_with(network: nn.Module, state: dict[str, Tensor]) -> bool:
    found = network.state_dict()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


def refusal(config: TeacherConfig) -> InputError:
    with pytest.raises(InputError) as caught:
        load_teacher(config)
    assert caught.value.field == "teacher.checkpoint" and caught.value.value == config.checkpoint
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def downloads(tmp_path, monkeypatch) -> Path:
    """The folder where torch keeps what it downloaded, still empty, and no way to download more."""
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def published_as(name: str, weights: str = "DEFAULT") -> str:
    """The file name under which torch keeps published weights."""
    return torchvision.models.get_model_weights(name)[weights].url.rpartition("/")[2]


class Trap:
    """Executes code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_without_a_checkpoint_there_is_nothing_to_load():
    with pytest.raises(ValueError, match="train the teacher instead"):
        load_teacher(CONFIG)


BLAMED = [
    ({"network": "resnet9000"}, "network"),
    ({"arguments": {"depth": 3}}, "arguments"),
    ({"checkpoint": "no_such.pt"}, "checkpoint"),
    ({"network": "torchvision:resnet18", "arguments": {}, "checkpoint": "no_such.pt"}, "checkpoint"),
]


@pytest.mark.parametrize(("change", "option"), BLAMED, ids=str)
def test_an_error_names_the_option_of_the_description_that_was_loaded(change, option, tmp_path):
    config = replace(CONFIG, **{"checkpoint": str(tmp_path), **change})
    for field, given in (("teacher", ()), ("verifiers.1", ("verifiers.1",))):
        with pytest.raises(InputError) as caught:
            load_teacher(config, *given)
        assert caught.value.field == f"{field}.{option}"


def test_the_remedy_for_what_does_not_fit_names_the_options_of_that_description(tmp_path):
    torch.save(digits_network(width=2 * WIDTH).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError) as caught:
        load_teacher(replace(CONFIG, checkpoint=str(tmp_path / "weights.pt")), "verifiers.1")
    assert "verifiers.1.network" in caught.value.remedy and "teacher." not in caught.value.remedy


# Files from the web


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Puts a file into the cache, as if it had been downloaded, and gives its URL, which leads nowhere."""
    monkeypatch.setenv("RAYDREAM_HOME", str(tmp_path / "cache"))

    def publish(path: Path) -> str:
        url, checksum = f"http://127.0.0.1:9/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()
        cached_path(url, checksum).parent.mkdir(parents=True, exist_ok=True)
        path.rename(cached_path(url, checksum))
        return f"{url}#sha256={checksum}"

    return publish


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_weights_that_were_downloaded_before_need_no_network(ending, published, tmp_path):
    state, path = randomised(digits_network(width=WIDTH)).state_dict(), tmp_path / f"weights.{ending}"
    safetensors.torch.save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    assert is_frozen_with(load_teacher(replace(CONFIG, checkpoint=published(path))).network, state)


def test_what_was_downloaded_is_not_executed(published, tmp_path):
    torch.save({"state_dict": {"0.weight": Trap(tmp_path / "sprung")}}, tmp_path / "weights.pt")
    assert "beside tensors" in refusal(replace(CONFIG, checkpoint=published(tmp_path / "weights.pt"))).remedy
    assert not (tmp_path / "sprung").exists()


def test_a_named_network_takes_weights_from_the_web_too(published, tmp_path):
    state = randomised(torchvision.models.resnet18(num_classes=10)).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    config = described("torchvision:resnet18", published(tmp_path / "weights.pt"))
    assert is_frozen_with(load_teacher(config).network, state)


# The project's own networks


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_of_the_project_loads_by_its_name(name, tmp_path):
    state = randomised(NETWORKS[name](input_channels=2, classes=7)).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    teacher = load_teacher(described(name, tmp_path / "weights.pt", classes=7, channels=2))
    assert is_frozen_with(teacher.network, state)
    assert teacher.config.network == name


def test_equal_weights_have_one_fingerprint_wherever_they_come_from(tmp_path):
    state = digits_network(width=WIDTH).state_dict()
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    one, other = (
        load_teacher(replace(CONFIG, checkpoint=str(tmp_path / f"weights.{e}"))) for e in ("pt", "safetensors")
    )
    assert one.fingerprint == other.fingerprint
    state["0.weight"][0, 0, 0, 0] += 1e-3
    torch.save(state, tmp_path / "weights.pt")
    assert load_teacher(replace(CONFIG, checkpoint=str(tmp_path / "weights.pt"))).fingerprint != one.fingerprint


@pytest.mark.parametrize("checkpoint", ["no_such.pt", "DEFAULT", "pretrained"])
def test_weights_of_the_projects_networks_are_files(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no such file" in refusal(replace(CONFIG, checkpoint=checkpoint)).remedy


# One's own networks

OWN = """
from torch import nn

def factory(width, bias=True):
    return nn.Sequential(nn.Conv2d(3, width, 3, bias=bias), nn.BatchNorm2d(width), nn.ReLU(), Head(width))

class Head(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, 10)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))
"""


@pytest.mark.parametrize("arguments", [{"width": 4}, {"width": 6, "bias": False}], ids=str)
def test_a_network_of_ones_own_is_imported_and_given_its_arguments(arguments, tmp_path, monkeypatch):
    (tmp_path / "somebodys").mkdir()
    (tmp_path / "somebodys" / "networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    state = randomised(build_network("somebodys.networks:factory", arguments, 3, 10)).state_dict()
    assert state["0.weight"].shape == (arguments["width"], 3, 3, 3)
    assert ("0.bias" in state) == arguments.get("bias", True)
    torch.save({"model": state}, tmp_path / "weights.pt")
    teacher = load_teacher(described("somebodys.networks:factory", tmp_path / "weights.pt", **arguments))
    assert is_frozen_with(teacher.network, state)
    assert teacher.logits(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 10)


# torchvision


@pytest.mark.parametrize("classes", [10, 1000])
def test_a_network_of_torchvision_loads_from_a_file(classes, tmp_path):
    state = randomised(torchvision.models.resnet18(num_classes=classes)).state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "weights.pth")
    teacher = load_teacher(described("torchvision:resnet18", tmp_path / "weights.pth", classes=classes))
    assert is_frozen_with(teacher.network, state)
    assert teacher.logits(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, classes)


@pytest.mark.parametrize("name", HEADED)
def test_auxiliary_heads_of_torchvisions_checkpoints_are_left_out(name, tmp_path):
    published = torchvision.models.get_model(name, weights=None, init_weights=False, aux_logits=True, num_classes=10)
    state = randomised(published).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    body = {key: value for key, value in state.items() if not key.startswith(("AuxLogits.", "aux1.", "aux2."))}
    assert 0 < len(body) < len(state)
    assert is_frozen_with(load_teacher(described(f"torchvision:{name}", tmp_path / "weights.pth")).network, body)


@pytest.mark.parametrize(("weights", "version"), [("IMAGENET1K_V1", 1), ("IMAGENET1K_V2", 2), ("DEFAULT", 2)])
def test_published_weights_are_taken_from_where_torch_keeps_them(weights, version, downloads):
    states = {seed: randomised(torchvision.models.mobilenet_v2(), seed).state_dict() for seed in (1, 2)}
    for seed, state in states.items():
        torch.save(state, downloads / published_as("mobilenet_v2", f"IMAGENET1K_V{seed}"))
    teacher = load_teacher(described("torchvision:mobilenet_v2", weights, classes=1000))
    assert is_frozen_with(teacher.network, states[version])


PUBLISHED = [
    ("resnet18", 32, {}),
    ("googlenet", 64, {"transform_input": True}),
    pytest.param("googlenet", 64, {}),
]


@pytest.mark.parametrize(("name", "size", "arguments"), PUBLISHED)
def test_published_weights_answer_as_in_torchvisions_own_network(name, size, arguments, downloads):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, **({"init_weights": False} if name in HEADED else {}))
    images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    for layer in batch_norm_layers(network).values():
        layer.momentum = None  # its statistics become those of the images, so that its answers differ with them
    with torch.no_grad():
        network(images / 255 - 0.5)
    torch.save(network.state_dict(), downloads / published_as(name))
    original = torchvision.models.get_model(name, weights="DEFAULT").eval()
    teacher = load_teacher(described(f"torchvision:{name}", "DEFAULT", classes=1000, **arguments))
    with torch.no_grad():
        expected = original(teacher.normalization(images))
    assert expected.std(dim=0).mean() > 1e-2
    torch.testing.assert_close(teacher.logits(images), expected, rtol=1e-3, atol=1e-4)


def test_a_file_goes_before_published_weights_of_its_name(downloads, tmp_path, monkeypatch):
    state = randomised(torchvision.models.resnet18(num_classes=10)).state_dict()
    torch.save(state, tmp_path / "DEFAULT")
    monkeypatch.chdir(tmp_path)
    assert is_frozen_with(load_teacher(described("torchvision:resnet18", "DEFAULT")).network, state)


KNOWN = {
    "torchvision:resnet18": "a file, or one of IMAGENET1K_V1, DEFAULT, for torchvision:resnet18",
    "torchvision:resnet50": "a file, or one of IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, for torchvision:resnet50",
}


@pytest.mark.parametrize("weights", ["IMAGENET1K_V9", "imagenet1k_v1", "pretrained", "no_such.pth"])
@pytest.mark.parametrize("network", KNOWN)
def test_unknown_weights_of_torchvision_list_the_known_ones(network, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refusal(described(network, weights))
    assert error.allowed == KNOWN[network] and error.remedy == "there is no such file"


def test_published_weights_of_another_number_of_classes_do_not_fit(downloads):
    torch.save(torchvision.models.resnet18().state_dict(), downloads / published_as("resnet18"))
    remedy = refusal(described("torchvision:resnet18", "DEFAULT", classes=10)).remedy
    assert "wrongly shaped: fc.weight (1000, 512) for (10, 512), fc.bias (1000,) for (10,)" in remedy


def test_published_weights_that_cannot_be_downloaded_are_told_with_a_way_out(downloads):
    error = refusal(described("torchvision:resnet18", "DEFAULT", classes=1000))
    assert "weights that can be had for torchvision:resnet18" in error.allowed
    assert "fetching them failed (<urlopen error" in error.remedy and "refused" in error.remedy
    assert "download them elsewhere, and name the file" in error.remedy
    assert list(downloads.iterdir()) == []


def test_a_pickle_among_the_downloads_is_refused_and_not_executed(downloads, tmp_path):
    torch.save(Trap(tmp_path / "sprung"), downloads / published_as("resnet18"))
    try:
        refusal(described("torchvision:resnet18", "DEFAULT", classes=1000))
    finally:
        assert not (tmp_path / "sprung").exists()


def test_a_damaged_download_is_refused(downloads):
    (downloads / published_as("resnet18")).write_bytes(b"PK\x03\x04 broken zip")
    assert "fetching them failed" in refusal(described("torchvision:resnet18", "DEFAULT", classes=1000)).remedy


# timm


def test_a_network_of_timm_loads_from_a_file(tmp_path):
    timm = pytest.importorskip("timm")
    state = randomised(timm.create_model("resnet10t", num_classes=7, in_chans=1)).state_dict()
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    teacher = load_teacher(described("timm:resnet10t", tmp_path / "weights.safetensors", classes=7, channels=1))
    assert is_frozen_with(teacher.network, state)
    assert teacher.logits(torch.zeros(2, 1, 32, 32, dtype=torch.uint8)).shape == (2, 7)


def test_a_checkpoint_of_torchvision_is_one_of_timms_network_of_that_name(tmp_path):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), tmp_path / "weights.pth")
    one, other = (
        load_teacher(described(f"{library}:resnet18", tmp_path / "weights.pth")) for library in ("torchvision", "timm")
    )
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(one.logits(images), other.logits(images))


@pytest.mark.parametrize("weights", ["DEFAULT", "Pretrained", "no_such.safetensors"])
def test_unknown_weights_of_timm_name_the_one_word_there_is(weights, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    error = refusal(described("timm:resnet10t", weights))
    assert error.allowed == "a file, or pretrained, for timm:resnet10t" and error.remedy == "there is no such file"


def test_a_network_without_published_weights_is_told():
    pytest.importorskip("timm")
    error = refusal(described("timm:resnetblur18", "pretrained", classes=1000))
    assert error.allowed == "weights that timm has for timm:resnetblur18"
    assert "fetching them failed: No pretrained weights exist for resnetblur18" in error.remedy


# In its own process, as the hub's library reads its settings when it is imported.
OFFLINE = """
import os, shutil
from raydream.config import TeacherConfig
from raydream.errors import InputError
from raydream.teachers.loading import load_teacher

shape = dict(input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, classes=1000)
config = TeacherConfig(network="timm:resnet10t", checkpoint="pretrained", **shape)
print(load_teacher(config).fingerprint)
shutil.rmtree(os.environ["HF_HOME"])
try:
    load_teacher(config)
except InputError as error:
    print(error)
"""


@pytest.mark.long
def test_pretrained_weights_of_timm_come_from_the_hub_or_not_at_all(tmp_path):
    timm = pytest.importorskip("timm")
    network = randomised(timm.create_model("resnet10t"))
    repository = timm.models.get_pretrained_cfg("resnet10t").hf_hub_id.replace("/", "--")
    kept = tmp_path / "hub" / f"models--{repository}"
    (kept / "snapshots" / "0").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0")
    safetensors.torch.save_file(network.state_dict(), kept / "snapshots" / "0" / "model.safetensors")
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    run = subprocess.run([sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    loaded, refused = run.stdout.splitlines()
    assert loaded == fingerprint(to_arrays(network))
    assert refused.startswith("teacher.checkpoint = 'pretrained': must be weights that timm has for timm:resnet10t; ")
    assert "fetching them failed: " in refused


# Trained here


def test_a_teacher_is_trained_once_and_found_again_by_its_recipe(tmp_path):
    training = TrainingConfig(epochs=1, library=str(tmp_path))
    first, found = trained_teacher(CONFIG, training, DataConfig())
    assert not found
    again, found = trained_teacher(CONFIG, training, DataConfig())
    assert found and again.fingerprint == first.fingerprint
    path = library_path(CONFIG, training, DataConfig())
    for other in (replace(training, seed=1), replace(training, epochs=2), replace(training, learning_rate=0.02)):
        assert library_path(CONFIG, other, DataConfig()) != path
    moved = replace(training, library=str(tmp_path / "elsewhere"))
    assert library_path(CONFIG, moved, DataConfig()).name == path.name


def test_a_recipe_of_version_0_1_keeps_the_name_of_its_teacher():
    config = TeacherConfig(arguments={"width": 16})
    assert library_path(config, TrainingConfig(), DataConfig()).name == "digits-8de0adba9bedc992.safetensors"


def test_every_setting_of_a_recipe_is_in_the_name_of_its_teacher():
    recipe = TrainingConfig(decay="cosine")
    others = [
        {"optimizer": "sgd"}, {"warm_up": 1}, {"clip_norm": 1.0}, {"ema": 0.9}, {"label_smoothing": 0.1},
        {"class_weights": "balanced"}, {"class_weights": (1.0,) * 10}, {"zoom": 0.1}, {"precision": "bf16"},
        {"flip": True},
        {"decay": "one_cycle"}, {"shift": 2}, {"batch_size": 3}, {"weight_decay": 0.0},
    ]  # fmt: skip
    changed = {name for other in others for name in other}  # type: ignore[attr-defined]
    assert changed == {field.name for field in fields(recipe)} - {"epochs", "seed", "learning_rate", "library"}
    names = {library_path(CONFIG, replace(recipe, **other), DataConfig()).name for other in [{}, *others]}
    assert len(names) == len(others) + 1


def test_a_teacher_of_files_is_another_one_when_the_images_are(tmp_path):
    random, paths = np.random.default_rng(0), []
    training = TrainingConfig(epochs=1, library=str(tmp_path / "library"))
    files = {"train": str(tmp_path / "train.npz"), "test": str(tmp_path / "test.npz")}
    data = DataConfig(name="files", **files)
    shape = CONFIG.input_shape
    for changed in (False, True, False):
        images = np.full((20, *shape[1:], shape[0]), 7, np.uint8)
        images[0, 0, 0, 0] = 8 if changed else 7
        np.savez(tmp_path / "train.npz", x=images, y=np.arange(20) % CONFIG.classes)
        np.savez(tmp_path / "test.npz", x=random.integers(0, 256, images.shape, dtype=np.uint8), y=np.zeros(20, int))
        paths.append(library_path(CONFIG, training, data))
    assert paths[0] == paths[2] != paths[1]  # the test split does not matter
    _, found = trained_teacher(CONFIG, training, data)
    assert not found and trained_teacher(CONFIG, training, data)[1]
