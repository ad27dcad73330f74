"""Networks, teachers and batches small enough for a unit test."""

import copy
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.config import SynthesisConfig, SynthesizeConfig, TeacherConfig
from raydream.config.conversion import as_dict
from raydream.networks.digits import digits_network
from raydream.runs.run_folder import RunFolder, begin
from raydream.store.atomic import write_json
from raydream.store.folders import LocalFolder
from raydream.store.records import BatchId, ImageBatch, Order, Provenance
from raydream.store.shards import ShardStore, file_name
from raydream.synthesis.batch import BatchMaker
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher, freeze, make_teacher

torch.set_num_threads(1)  # such small tensors only lose by more

WIDTH = 8
ADDED_IMAGES = {
    "additions": {"rounds": 1, "batches": 2, "epochs": 2},
    "synthesis": {
        "batch_size": 20,
        "iterations": 15,
        "learning_rate": 0.1,
        "jitter": 1,
        "precision": "fp32",
        "coefficients": {"l2": 0.0},
    },
}
"""settings of a job that adds images to those it is given, in one round"""


def tiny_network(seed: int = 0) -> nn.Module:
    """The digits network with decided outputs and BN statistics of blurred images, in train mode."""
    return copy.deepcopy(_original(seed))


@functools.cache
def _original(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = digits_network(width=WIDTH)
        with torch.no_grad():
            network[-1].weight.mul_(10.0)
        for _ in range(30):
            blurred = functional.interpolate(torch.rand(32, 1, 3, 3), size=8, mode="bilinear")
            network((blurred - 0.3) / 0.35)
    return network


def shard_path(store: ShardStore, batch: BatchId) -> Path:
    """Of a batch's shard in a folder of this machine."""
    return Path(str(store.folder)) / file_name(batch)


def local_run(path: Path) -> RunFolder:
    """A run's folder on this machine."""
    return RunFolder(LocalFolder(path), "run", path)


def tiny_teacher(seed: int = 0) -> Teacher:
    return make_teacher(tiny_network(seed), TeacherConfig(arguments={"width": WIDTH}))


def tiny_student(seed: int = 1) -> nn.Module:
    return freeze(tiny_network(seed))


def tiny_synthesis(**changes: object) -> SynthesisConfig:
    """Settings of a second's work; in fp32, as `auto` would depend on the machine."""
    return SynthesisConfig(**{"batch_size": 8, "iterations": 6, "jitter": 1, "precision": "fp32", **changes})


def tiny_targets(count: int = 8) -> Tensor:
    return torch.arange(count) % 10


def some_batch(batch: str = "r0001-b0002", count: int = 5, shape: tuple[int, ...] = (3, 4, 6)) -> ImageBatch:
    """An image batch with awkward values in all its fields."""
    random = np.random.default_rng(count)
    logits = random.standard_normal((count, 7)).astype(np.float32)
    logits[0, :4] = [np.float32(1e-42), -0.0, np.inf, np.finfo(np.float32).max]
    provenance = Provenance(
        run="2024-run é",
        batch=batch,
        generator=3,
        seed=2**63 - 1,
        method="adaptive",
        teacher="0123456789abcdef",
        student_step=None,
        source="r0000-b0001",
        restarts=2,
        coefficients={"tv": 2.5e-5, "feature": 10.0},
        losses={"tv": 0.1 + 0.2, "feature": 1 / 3},
        distances={"1": 1e-300, "3.bn1": 7.0},
        target_share=0.6,
    )
    pixels = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    return ImageBatch(pixels, random.integers(0, 7, count), logits, provenance)


def finished_images(run_dir: Path, sizes: Sequence[int] = (20, 20)) -> Path:
    """The folder of a run that is done and made batches of the tiny teacher of these sizes; without Ray."""
    teacher, synthesis = tiny_teacher(), tiny_synthesis(method="deep_inversion", batch_size=20)
    config = SynthesizeConfig(images=sum(sizes), teacher=teacher.config, synthesis=synthesis)
    folder = begin(str(run_dir), as_dict(config), "synthesize")
    save_network(teacher.network, folder.teacher)
    maker, store = BatchMaker(folder.run, teacher, synthesis), ShardStore(folder.images)
    for index, size in enumerate(sizes):
        store.write(maker.make(Order(BatchId(0, index), np.arange(size) % 10, index), None, None).batch)
    write_json(folder.summary, {})
    return run_dir
