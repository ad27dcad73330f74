"""Seventeen unlike networks through doctor, synthesize, transfer, prune and quantize: what works, and what is refused.

    python benchmarks/unlike.py --data FOLDER --work DIR --json benchmarks/results/unlike.json

FOLDER has train.parquet and test.parquet of CIFAR-10 (`jpeg`, `label`). Seven networks are trained briefly, as
benchmarks/doctor.py does, and kept in DIR. The others are torchvision's with random weights, whose BN statistics are
calibrated on noise: they say what works with such a structure, and nothing about accuracy.

Each network is diagnosed with a probe. Images are made of it by 200 updates, with the doctor's suggestions, or where it
has no BN, by DeepDream. A small CNN learns from these images; half of the filters, and all but eight bits, are removed.
What is refused is refused in the sentence that the user sees. One process, one seed; a network in the file is left out.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import doctor
import numpy as np
import torch
from torch import nn

import raydream
from raydream.config import DataConfig, TeacherConfig, TrainingConfig
from raydream.data import load_data
from raydream.data.splits import Split
from raydream.errors import RaydreamError
from raydream.networks import build_network
from raydream.store.atomic import write_json
from raydream.supervised.library import trained_teacher

TRAINED: dict[str, TeacherConfig] = {
    **doctor.NETWORKS,
    "rectified": TeacherConfig(
        network="unlike_networks:rectified", input_shape=(3, 32, 32), classes=2, mean=(0.5,) * 3, std=(0.25,) * 3
    ),
}
RANDOM: dict[str, TeacherConfig] = {
    "long_input": TeacherConfig(
        network="unlike_networks:long_input", input_shape=(1, 16, 96), classes=10, mean=(0.5,), std=(0.25,)
    ),
    **{
        name: TeacherConfig(network=f"torchvision:{name}", input_shape=(3, size, size), classes=100, **doctor.IMAGENET)
        for name, size in {
            "mobilenet_v2": 64,
            "mobilenet_v3_small": 64,
            "efficientnet_b0": 64,
            "shufflenet_v2_x0_5": 64,
            "regnet_y_400mf": 64,
            "densenet121": 64,
            "googlenet": 64,
            "convnext_tiny": 64,
        }.items()
    },
    "vit_b_32": TeacherConfig(
        network="torchvision:vit_b_32",
        arguments={"image_size": 64},
        input_shape=(3, 64, 64),
        classes=100,
        **doctor.IMAGENET,
    ),
}
UPDATES, EPOCHS = 200, 30
Made = TypeVar("Made")


def main(arguments: Sequence[str] | None = None) -> None:
    """Try what is missing, and write after each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder to keep networks and images in")
    parser.add_argument("--networks", nargs="+", default=[*TRAINED, *RANDOM], choices=[*TRAINED, *RANDOM])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    done: list[dict[str, Any]] = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else []
    for name in given.networks:
        if name not in [each["network"] for each in done]:
            done.append({"network": name, "trained": name in TRAINED, **_tried(name, given.data, given.work)})
            write_json(given.json, done)
            print(json.dumps(done[-1]), flush=True)


def _tried(name: str, data: Path, work: Path) -> dict[str, Any]:
    network, test = _taught(name, data, work) if name in TRAINED else (_calibrated(RANDOM[name]), None)
    config = (TRAINED | RANDOM)[name]
    teacher = raydream.load_teacher(network, **doctor.as_described(config))
    count, batch = (256, 128) if name in TRAINED else (16, 16)
    row: dict[str, Any] = {"parameters": sum(weights.numel() for weights in network.parameters())}
    if test is not None:
        row["accuracy"] = raydream.accuracy(teacher, test.images, test.labels)
    shown = () if test is None else (test.images[: doctor.SHOWN], test.labels[: doctor.SHOWN])
    diagnosis = _step(row, "doctor", lambda: raydream.diagnose(teacher, *shown))
    if diagnosis is not None:
        row["findings"] = [
            f"{found.severity}: {found.text}" for found in diagnosis.findings if found.severity != "note"
        ]
    suggested = {} if diagnosis is None else diagnosis.suggested.get("synthesis", {})
    has_bn = diagnosis is None or bool(diagnosis.statistics)
    row["method"] = "deep_inversion" if has_bn else "deepdream"
    settings = {**suggested, "iterations": UPDATES, "batch_size": batch}
    settings.pop("method", None)
    images = _step(row, "synthesize", lambda: raydream.synthesize(teacher, count, row["method"], synthesis=settings))
    if images is None:
        return row
    row["target_share"] = float(np.mean(images.teacher_logits.argmax(1) == images.targets))
    student = build_network("digits", {"width": 16}, config.input_shape[0], config.classes)
    steps: dict[str, Callable[[], raydream.Teacher]] = {
        "transfer": lambda: raydream.transfer(teacher, images, student, epochs=EPOCHS, student={"batch_size": 32}),
        "prune": lambda: raydream.prune(
            teacher, images, 0.5, pruning={"steps": 3, "epochs": 5}, student={"batch_size": 32}
        ),
        "quantize": lambda: raydream.quantize(teacher, images, 8, 8),
    }
    for step, call in steps.items():
        made = _step(row, step, call)
        if made is not None and test is not None:
            row[f"{step}_accuracy"] = raydream.accuracy(made, test.images, test.labels)
    return row


def _step(row: dict[str, Any], step: str, call: Callable[[], Made]) -> Made | None:
    """Call, and note the seconds or the sentence of the refusal."""
    began = time.perf_counter()
    try:
        result = call()
    except RaydreamError as error:
        row[step] = str(error)
        return None
    row[step] = round(time.perf_counter() - began, 1)
    return result


def _taught(name: str, data: Path, work: Path) -> tuple[nn.Module, Split]:
    """Return a trained network, and real images that it was not trained on."""
    if name in doctor.NETWORKS:
        network, test = doctor.trained(doctor.NETWORKS[name], data, work)
        return network, test
    # Two classes: animals and vehicles.
    paths: dict[str, Any] = {}
    for split, count in (("train", doctor.TRAINED_ON), ("test", doctor.MEASURED_ON)):
        with np.load(doctor.some(data, work, split, count)) as ten:
            paths[split] = str(work / f"{split}_two.npz")
            np.savez(paths[split], x=ten["x"], y=np.isin(ten["y"], (0, 1, 8, 9)).astype(np.int64))
    where = DataConfig(name="files", validation_share=0.02, **paths)
    training = TrainingConfig(epochs=5, batch_size=64, shift=3, library=str(work / "teachers"))
    teacher, _ = trained_teacher(TRAINED[name], training, where)
    real = load_data(where, TRAINED[name])
    assert real is not None
    return teacher.network, real.test


@torch.no_grad()
def _calibrated(config: TeacherConfig) -> nn.Module:
    """Return a network with random weights, and BN statistics of noise."""
    torch.manual_seed(0)
    network = build_network(config.network, dict(config.arguments), config.input_shape[0], config.classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.trunc_normal_(module.weight, std=0.02)  # a head that answers nothing has no gradient
    network.train()
    for _ in range(4):
        network(torch.randn(16, *config.input_shape))
    return network.eval()


if __name__ == "__main__":
    main()
