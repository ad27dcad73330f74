"""The way of ImageNet at its real sizes, with random weights: two resolutions, and a student from them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from raydream.networks import build_network
from raydream.teachers.checkpoints import save_network
from tests.calls import images_of
from tests.conftest import Job

pytestmark = [pytest.mark.long, pytest.mark.ray]


@torch.no_grad()
def calibrated() -> nn.Module:
    """torchvision's ResNet-18 with random weights, and BN statistics of noise."""
    torch.manual_seed(0)
    network = build_network("torchvision:resnet18", {}, 3, 1000)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    network.train()
    network(torch.randn(8, 3, 224, 224))
    return network.eval()


def test_two_resolutions_become_images_from_which_a_student_learns(job: Job, tmp_path: Path) -> None:
    weights = tmp_path / "resnet18.safetensors"
    save_network(calibrated(), weights)
    settings = {
        "experiment": "imagenet",
        "images": 8,
        "teacher": {
            "network": "torchvision:resnet18",
            "checkpoint": str(weights),
            "input_shape": [3, 224, 224],
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "classes": 1000,
        },
        "data": {"name": "none"},
        "generators": {"count": 1},
        "reuse": "",
    }
    own, few = tmp_path / "own.yaml", tmp_path / "few.yaml"
    own.write_text(yaml.safe_dump(settings))
    stages = [{"size": [112, 112], "iterations": 6, "jitter": 15}, {"iterations": 3, "jitter": 30}]
    few.write_text(yaml.safe_dump({"synthesis": {"batch_size": 8, "warm_up": 1, "stages": stages}}))
    configs = [word for name in (own, "preset:imagenet_multi_resolution", few) for word in ("--config", name)]
    made = job("synthesize", *configs, "--run-dir", tmp_path / "images")
    assert made.returncode == 0, made.stdout + made.stderr
    images = next(iter(images_of(tmp_path / "images").values())).images
    assert images.shape == (8, 3, 224, 224) and np.ptp(images) > 100
    # Nearest upsampling, then three updates at the full size: what was one pixel differs within.
    blocks = images.reshape(8, 3, 112, 2, 112, 2).astype(float)
    assert blocks.std(axis=(3, 5)).mean() > 0.5
    student = ["--student.network", "torchvision:mobilenet_v3_small", "--student.batch_size", 4]
    learned = job(
        "transfer", "--images", tmp_path / "images", *student, "--epochs", 2, "--run-dir", tmp_path / "student"
    )
    assert learned.returncode == 0, learned.stdout + learned.stderr
    assert json.loads((tmp_path / "student" / "summary.json").read_text())["distillation_steps"] == 4
