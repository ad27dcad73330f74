"""Outside a terminal, a job says what it waits for: those that need no Ray, with a short interval between the lines."""

import re
from pathlib import Path

import pytest

from raydream.diagnosis import structure
from raydream.networks.digits import digits_network
from raydream.reporting import progress
from raydream.teachers.checkpoints import save_network
from tests.calls import call
from tests.tiny import finished_images


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a network's weights; a line is due every millisecond."""
    monkeypatch.setattr(progress, "LINE_S", 0.001)
    monkeypatch.setattr(structure, "_exported", lambda network, config: "yes")  # exporting takes seconds
    save_network(digits_network(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_of_a_diagnosis(weights: Path, tmp_path: Path) -> None:
    few = ["--updates", "0", "--synthesis.batch_size", "8", "--synthesis.precision", "fp32"]
    done = call("doctor", "--teacher.checkpoint", weights, *few, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("networks and data to be checked", "the network to be diagnosed", "the report to be written"):
        assert f"waiting for {what}\n" in done.stdout


def test_of_other_networks_that_classify(weights: Path, tmp_path: Path) -> None:
    images = finished_images(tmp_path / "images")
    done = call("evaluate", "--images", images, "--verifiers", f"digits={weights}", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting for the images to be classified\n" in done.stdout


def test_of_a_long_epoch(weights: Path, tmp_path: Path) -> None:
    few = ["--teacher.arguments.width", "4", "--training.epochs", "1", "--training.library", tmp_path / "library"]
    done = call("train", *few, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\[ +\d+ s\] \d+ of \d+ training steps$", done.stdout, re.M), done.stdout
