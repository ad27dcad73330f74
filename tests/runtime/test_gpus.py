"""Processes on GPUs, as far as Ray alone can show it: told of two, it places and counts them, and there are none."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from raydream.config import DistillConfig
from raydream.runtime.evaluator import Evaluator
from raydream.runtime.session import share_of_gpu_left
from raydream.store.records import Snapshot
from raydream.teachers.teacher import to_arrays
from tests.calls import TINY, call, images_of
from tests.tiny import tiny_network

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long


@pytest.fixture
def told_of_two(own_ray: None) -> Iterator[None]:
    """This process is a driver on a private Ray that takes this machine for one with two GPUs."""
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])}}
    quiet = {"log_to_driver": False, "include_dashboard": False}
    ray.init(address="local", num_cpus=4, num_gpus=2, runtime_env=environment, **quiet)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class Holder:
    def seen(self) -> tuple[str | None, list[int]]:
        return os.environ.get("CUDA_VISIBLE_DEVICES"), ray.get_gpu_ids()


def test_a_process_sees_the_gpu_that_it_reserves_and_measuring_gets_what_is_left(told_of_two: None):
    assert ray.get(Holder.remote().seen.remote()) == ("", [])  # type: ignore[attr-defined]
    shares = [0.45, 0.45, 0.45]
    left = share_of_gpu_left("auto", shares)
    assert left == 0.55
    config = DistillConfig()
    evaluator = ray.remote(num_cpus=0, num_gpus=left)(Evaluator).remote(config.data, config.teacher, tiny_network, left)
    step, measured = ray.get(evaluator.measure.remote(Snapshot(7, to_arrays(tiny_network()))), timeout=120)
    assert step == 7 and set(measured) == {"validation", "test"}
    holders = [Holder.options(num_gpus=share).remote() for share in shares]  # type: ignore[attr-defined]
    seen = ray.get([holder.seen.remote() for holder in holders], timeout=120)
    assert [visible for visible, _ in seen] == [str(index) for _, (index,) in seen]
    assert len({visible for visible, _ in seen}) == 2
    assert ray.available_resources()["GPU"] == pytest.approx(0.1)


def test_a_run_on_fractions_of_gpus_comes_to_its_end(own_ray: None, tmp_path: Path, library: Path):
    # Two workers that may share a GPU, which NCCL would refuse.
    shares = ["--generators.gpus", "0.45", "--student.gpus", "0.45", "--student.workers", "2", "--student.cpus", "0.5"]
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, "num_cpus": 4, "num_gpus": 2})
    try:
        options = ["--config", TINY, "--training.library", library, "--run-dir", tmp_path / "run", *shares]
        done = call("distill", *options, address=cluster.address)
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(images_of(tmp_path / "run")) == 9
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["gpu_hours"] > 0
