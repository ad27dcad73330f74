"""An object store too small for the images, and filled by somebody else beside."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
import yaml
from ray.cluster_utils import Cluster

from raydream.networks import NETWORKS
from raydream.teachers.checkpoints import save_network
from tests.calls import images_of, start
from tests.chaos.faults import assert_nothing_left

pytestmark = pytest.mark.chaos

STORE_BYTES = 80 * 2**20
BATCHES, BATCH, SIDE = 32, 128, 96
"""images of 3 x SIDE x SIDE bytes: more than the store holds"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = NETWORKS["cifar_resnet20"](input_channels=3, classes=10).train()
    for _ in range(20):
        network(torch.randn(8, 3, SIDE, SIDE))
    save_network(network, tmp_path / "teacher.safetensors")
    settings = {
        "teacher": {
            "network": "cifar_resnet20",
            "checkpoint": str(tmp_path / "teacher.safetensors"),
            "input_shape": [3, SIDE, SIDE],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        "data": {"name": "none"},
        "synthesis": {"method": "deep_inversion", "batch_size": BATCH, "iterations": 1, "compile": "off"},
        "student": {"network": "cifar_resnet20", "batch_size": 16, "cpus": 0.5},
        "generators": {"count": 2, "cpus": 0.5},
        "rounds": {"initial_batches": BATCHES, "count": 0, "final_steps": 20},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_full_object_store_drops_nothing(start_cluster: Callable[..., Cluster], config: Path, tmp_path: Path) -> None:
    assert BATCHES * BATCH * 3 * SIDE**2 > 1.3 * STORE_BYTES
    cluster, run_dir = start_cluster(num_cpus=2, object_store_memory=STORE_BYTES), tmp_path / "run"
    ray.init(address=cluster.address, log_to_driver=False)
    held = ray.get([ray.put(np.zeros(10 * 2**20, np.uint8)) for _ in range(4)])  # looked at: it cannot be spilled
    process = start(
        "distill", "--config", config, "--run-dir", run_dir, env={**os.environ, "RAY_ADDRESS": cluster.address}
    )
    out, error = process.communicate(timeout=500)
    assert process.returncode == 0, out + error
    assert len(held) == 4 and len(images_of(run_dir)) == BATCHES
    assert json.loads((run_dir / "summary.json").read_text())["distillation_steps"] == 20
    assert_nothing_left(run_dir, {})
