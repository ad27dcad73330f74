"""Are coefficients that are `auto` as good as hand-set ones, on networks that they were not chosen for?

    python benchmarks/balance.py --work DIR --json benchmarks/results/balance.json
    python benchmarks/balance.py --work DIR --json benchmarks/results/balance.json --data FOLDER --networks resnet8

Each network is trained briefly and kept in DIR: those of digits on handwritten digits, the others (doctor.py) on some
thousand images of CIFAR-10, of which FOLDER has train.parquet and test.parquet. A cell is a network, a setting and a
seed: 256 images in batches of 64, 200 updates each, by DeepInversion with

    auto        synthesis.coefficients.feature and tv are auto
    preset      feature 1, tv 1e-3, l2 0: set by hand, in the presets of the CIFAR-10 ResNet-20, from which auto has its
                ratios, and of the digits CNN
    default     those of the paper for CIFAR-10, which a configuration has that names only others

Measured are the share of images on target, the share that an independent network of another architecture classifies as
their target, and the accuracy on real test images of a student that learns from these images alone, from scratch. A
cell that is in the file is not measured again.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from doctor import NETWORKS, as_described, trained

import raydream
from raydream.config import TeacherConfig
from raydream.data.splits import Split
from raydream.evaluation.cross_model import target_shares
from raydream.store.atomic import write_json
from raydream.teachers.teacher import Teacher

DIGITS: dict[str, TeacherConfig] = {
    "digits": NETWORKS["digits"],
    # of pixels from 0 to 255, which change the length of all gradients with respect to the network's input
    "digits_mobile": TeacherConfig(network="unlike_networks:digits_mobile", mean=(0.0,), std=(1 / 255,)),
}
ALL = {**NETWORKS, **DIGITS}
VERIFIERS = {
    **{"digits": "digits_mobile", "digits_mobile": "digits"},
    **{"resnet8": "slim_vgg", "plain": "resnet8", "slim_vgg": "resnet8", "mobile": "resnet8", "wrn16_1": "slim_vgg"},
}
COEFFICIENTS: dict[str, dict[str, Any]] = {
    "auto": {"feature": "auto", "tv": "auto"},
    "preset": {"feature": 1.0, "tv": 1e-3, "l2": 0.0},
    "default": {"feature": 10.0, "tv": 2.5e-5},
}
IMAGES, EPOCHS = 256, 60
SYNTHESIS = {"batch_size": 64, "iterations": 200, "learning_rate": 0.1, "decay": "cosine", "precision": "fp32"}
VIEW = {"zoom": 0.2, "rotation": 15, "brightness": 0.47, "contrast": 0.3}
STUDENT = {"batch_size": 64, "learning_rate": 0.1, "precision": "fp32", "view": VIEW}
MEASURES = ("target_share", "verifier_share", "student_accuracy")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write after each cell."""
    given = _options(arguments)
    torch.set_num_threads(given.threads)
    done: list[dict[str, Any]] = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else []
    for name in given.networks:
        wanted = [(setting, seed) for seed in range(given.seeds) for setting in COEFFICIENTS]
        present = {(each["setting"], each["seed"]) for each in done if each["network"] == name}
        missing = [cell for cell in wanted if cell not in present]
        if not missing:
            continue
        teacher, test = _teacher(name, given)
        verifier, _ = _teacher(VERIFIERS[name], given)
        keys = {"network": name, "accuracy": raydream.accuracy(teacher, test.images, test.labels)}
        keys |= {
            "verifier": VERIFIERS[name],
            "verifier_accuracy": raydream.accuracy(verifier, test.images, test.labels),
        }
        for setting, seed in missing:
            given_to = {"coefficients": COEFFICIENTS[setting]}
            found = measured(teacher, verifier, test, "deep_inversion", given_to, seed)
            done.append({**keys, "setting": setting, "seed": seed, **found})
            write_json(given.json, done)
            print(json.dumps(done[-1]), flush=True)
    show(done)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train.parquet and test.parquet of CIFAR-10")
    parser.add_argument("--work", type=Path, required=True, help="folder to keep networks and images in")
    parser.add_argument("--networks", nargs="+", default=[*DIGITS], choices=[*ALL])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.data is None and {*options.networks} - {*DIGITS}:
        parser.error("--data names the folder with CIFAR-10, which these networks are trained on")
    return options


def _teacher(name: str, given: argparse.Namespace) -> tuple[Teacher, Split]:
    network, test = trained(ALL[name], given.data, given.work)
    return raydream.load_teacher(network, **as_described(ALL[name])), test


def measured(
    teacher: Teacher, verifier: Teacher, test: Split, method: str, synthesis: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Return the coefficients, what was measured, and the seconds that images and student took."""
    began, small = time.perf_counter(), teacher.config.input_shape[1] == 8
    settings = {**SYNTHESIS, "jitter": 1 if small else 2, **synthesis}
    images = raydream.synthesize(teacher, IMAGES, method, seed=seed, synthesis=settings)
    batches = list(images.batches())
    made_s = time.perf_counter() - began
    hits, count = target_shares(batches, verifier).sum(0)
    network, arguments = ("digits", {"width": 8}) if small else ("unlike_networks:resnet8", {})
    view = {**VIEW, "shift": 1 if small else 4, "flip": not small}
    student = {**STUDENT, "arguments": arguments, "view": view}
    learned = raydream.transfer(teacher, images, network, epochs=EPOCHS, seed=seed, student=student)
    return {
        "coefficients": batches[0].provenance.coefficients,
        "target_share": sum(batch.provenance.target_share for batch in batches) / len(batches),
        "verifier_share": float(hits / count),
        "student_accuracy": raydream.accuracy(learned, test.images, test.labels),
        "made_s": made_s,
        "seconds": time.perf_counter() - began,
    }


def show(done: list[dict[str, Any]]) -> None:
    """Print the means over seeds, by network and setting."""
    for name in dict.fromkeys(each["network"] for each in done):
        for setting in dict.fromkeys(each["setting"] for each in done):
            cells = [each for each in done if (each["network"], each["setting"]) == (name, setting)]
            if cells:
                means = (f"{key} {sum(each[key] for each in cells) / len(cells):6.1%}" for key in MEASURES)
                print(f"{name:14} {setting:8} {'  '.join(means)}  ({len(cells)} seeds)")


if __name__ == "__main__":
    main()
