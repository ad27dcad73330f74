"""Does `raydream doctor` find six mistakes in six networks, and does it keep silent about networks without one?

    python benchmarks/doctor.py --data FOLDER --work DIR --json benchmarks/results/doctor.json

FOLDER has train.parquet and test.parquet of CIFAR-10 (`jpeg`, `label`). Six networks are trained briefly and kept in
DIR: digits on handwritten digits, the others (unlike_networks.py and a WRN-16-1) on some thousand images. HELD_OUT were
not looked at when thresholds were chosen. Each mistake is seeded by a change of the description or of the network:

    pixels      described by pixels of 0 to 255 where training saw normalized ones, or the other way round
    swapped     mean and std exchanged in the description
    bgr         the first convolution's input channels reversed: a network of BGR images, described by RGB constants
    size        height and width doubled in the description
    untrained   running statistics of zeros and ones
    nan         one running variance is NaN

and diagnosed without images, with real images, and with their labels, without a probe. A hit is a fault or a suspicion
of the right kind, or a refusal to load or to run the network. A false alarm is a fault or a suspicion about a network
without a mistake, or of a kind that was not seeded. A cell that is in the file is not measured again.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import raydream
from raydream.config import DataConfig, TeacherConfig, TrainingConfig
from raydream.data import load_data
from raydream.data.files import open_files
from raydream.data.splits import Split
from raydream.diagnosis import structure
from raydream.evaluation.accuracy import accuracy
from raydream.store.atomic import write_json
from raydream.supervised.library import trained_teacher

CIFAR10: dict[str, Any] = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
COLOR: dict[str, Any] = {"input_shape": (3, 32, 32), "classes": 10}
NETWORKS: dict[str, TeacherConfig] = {
    "digits": TeacherConfig(arguments={"width": 16}),
    "resnet8": TeacherConfig(network="unlike_networks:resnet8", mean=(0.5,) * 3, std=(0.25,) * 3, **COLOR),
    "plain": TeacherConfig(network="unlike_networks:plain", **CIFAR10, **COLOR),
    "slim_vgg": TeacherConfig(network="unlike_networks:slim_vgg", mean=(0.0,) * 3, std=(1 / 255,) * 3, **COLOR),
    "mobile": TeacherConfig(network="unlike_networks:mobile", **IMAGENET, **COLOR),
    "wrn16_1": TeacherConfig(network="cifar_wrn16_1", **CIFAR10, **COLOR),
}
HELD_OUT = ("mobile", "wrn16_1")
ABOUT = {
    "pixels": "normalization",
    "swapped": "normalization",
    "bgr": "channels",
    "size": "size",
    "untrained": "statistics",
    "nan": "statistics",
}
"""the kind of finding that is a hit, by mistake"""
EVIDENCE = ("nothing", "images", "labels")
TRAINED_ON, MEASURED_ON, SHOWN = 8000, 2000, 128
"""images"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write after each cell."""
    given = _options(arguments)
    torch.set_num_threads(given.threads)
    # What can be exported and pruned decides no finding that is counted, and takes most of the time.
    structure._exported = structure._prunable = lambda network, config: structure.YES
    done: list[dict[str, Any]] = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else []
    for name in given.networks:
        wanted = [(mistake, evidence) for mistake in ("none", *ABOUT) for evidence in EVIDENCE]
        present = {(each["mistake"], each["evidence"]) for each in done if each["network"] == name}
        if present >= set(wanted):
            continue
        network, test = trained(name, given.data, given.work)
        config = NETWORKS[name]
        reached = accuracy(
            network, raydream.load_teacher(network, **as_described(config)).normalization, *_arrays(test)
        )
        for mistake, evidence in wanted:
            if (mistake, evidence) in present:
                continue
            keys = {"network": name, "held_out": name in HELD_OUT, "mistake": mistake, "evidence": evidence}
            done.append({**keys, "accuracy": reached, **_cell(network, config, mistake, evidence, test)})
            write_json(given.json, done)
            print(json.dumps({**keys, **{key: done[-1][key] for key in ("outcome", "false_alarms")}}), flush=True)
    _print(done)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder to keep networks and images in")
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args(arguments)


def trained(name: str, data: Path, work: Path) -> tuple[nn.Module, Split]:
    """Return a trained network, from `work` if it was trained before, and real images that it was not trained on."""
    training = TrainingConfig(epochs=5, batch_size=64, shift=3, library=str(work / "teachers"))
    where = DataConfig()
    if name == "digits":
        training = replace(training, epochs=30, shift=1)
    else:
        paths: dict[str, Any] = {
            split: some(data, work, split, count) for split, count in (("train", TRAINED_ON), ("test", MEASURED_ON))
        }
        where = DataConfig(name="files", validation_share=0.02, **paths)
    teacher, _ = trained_teacher(NETWORKS[name], training, where)
    real = load_data(where, NETWORKS[name])
    assert real is not None
    return teacher.network, real.test


def some(data: Path, work: Path, split: str, count: int) -> str:
    """Keep some images of a split in an .npz file, and return its path."""
    path = work / f"{split}.npz"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        source = open_files(str(data / f"{split}.parquet"), "--data", (3, 32, 32))
        rows = np.sort(np.random.default_rng(0).permutation(sum(source.parts))[:count])
        np.savez(path, x=source.read(rows).transpose(0, 2, 3, 1), y=source.labels()[rows])
    return str(path)


def _arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    return split.images, split.labels


def as_described(config: TeacherConfig) -> dict[str, Any]:
    """Return a network's description as arguments of `load_teacher`."""
    shared = {"input_shape": config.input_shape, "mean": config.mean, "std": config.std, "classes": config.classes}
    return {**shared, "device": "cpu"}


def seeded(network: nn.Module, config: TeacherConfig, mistake: str) -> tuple[nn.Module, TeacherConfig] | None:
    """Return a copy of a network and its description with a mistake; None where it changes nothing or is no setting."""
    changed, channels = copy.deepcopy(network), config.input_shape[0]
    layers = [layer for layer in changed.modules() if isinstance(layer, nn.BatchNorm2d)]
    if mistake == "pixels":
        whole = config.std[0] < 0.01
        return changed, replace(config, mean=(0.0,) * channels, std=(1.0 if whole else 1 / 255,) * channels)
    if mistake == "swapped":
        return None if min(config.mean) <= 0 else (changed, replace(config, mean=config.std, std=config.mean))
    if mistake == "bgr":
        if channels == 1:
            return None
        first = next(layer for layer in changed.modules() if isinstance(layer, nn.Conv2d))
        first.weight.data = first.weight.data.flip(1)
    elif mistake == "size":
        _, height, width = config.input_shape
        return changed, replace(config, input_shape=(channels, 2 * height, 2 * width))
    elif mistake == "untrained":
        for layer in layers:
            layer.reset_running_stats()
    elif mistake == "nan":
        layers[len(layers) // 2].running_var[0] = torch.nan  # type: ignore[index]
    return changed, config


def _cell(network: nn.Module, config: TeacherConfig, mistake: str, evidence: str, test: Split) -> dict[str, Any]:
    """Return the outcome (hit, refused, missed, silent, not applicable), false alarms, and what was said."""
    made = seeded(network, config, mistake)
    if made is None:
        return {"outcome": "not applicable", "false_alarms": 0, "said": []}
    changed, described = made
    factor = described.input_shape[1] // config.input_shape[1]
    images = torch.from_numpy(test.images[:SHOWN])
    if factor > 1:  # as `--real` resizes what is of another size
        images = nn.functional.interpolate(images.float(), scale_factor=factor, mode="bilinear").round().to(torch.uint8)
    shown = None if evidence == "nothing" else images
    labels = test.labels[:SHOWN] if evidence == "labels" else None
    try:
        teacher = raydream.load_teacher(changed, **as_described(described))
        findings = raydream.diagnose(teacher, shown, labels, updates=0).findings
    except raydream.InputError as error:
        outcome = "refused" if mistake != "none" else "missed"
        return {"outcome": outcome, "false_alarms": int(mistake == "none"), "said": [str(error)]}
    alarms = [finding for finding in findings if finding.severity != "note"]
    right = [finding for finding in alarms if finding.about == ABOUT.get(mistake)]
    outcome = "silent" if mistake == "none" and not alarms else "hit" if right else "missed"
    outcome = "false alarm" if mistake == "none" and alarms else outcome
    said = [f"{finding.severity}, {finding.about}: {finding.text}" for finding in alarms]
    return {"outcome": outcome, "false_alarms": len(alarms) - len(right), "said": said}


def _print(done: list[dict[str, Any]]) -> None:
    """Count hits by mistake and evidence, of the held-out networks and of the others."""
    for held_out in (False, True):
        print("held-out networks" if held_out else "networks by which thresholds were chosen")
        for evidence in EVIDENCE:
            rows = [each for each in done if each["held_out"] == held_out and each["evidence"] == evidence]
            told = []
            for mistake in ABOUT:
                cells = [r["outcome"] for r in rows if r["mistake"] == mistake and r["outcome"] != "not applicable"]
                told.append(f"{mistake} {sum(cell in ('hit', 'refused') for cell in cells)}/{len(cells)}")
            clean = [row for row in rows if row["mistake"] == "none"]
            alarms = sum(row["outcome"] != "silent" for row in clean)
            others = sum(row["false_alarms"] for row in rows if row["mistake"] != "none")
            print(f"  {evidence:8} {'  '.join(told)}  false alarms {alarms}/{len(clean)}, of another kind {others}")


if __name__ == "__main__":
    main()
