"""Accuracy against time: what students know after so many minutes with each method.

    python benchmarks/hour.py --config configs/cifar10_resnet20_fast.yaml \
        --settings benchmarks/settings/hour_cifar10.yaml --real lossless4k.npz --test test.parquet \
        --minutes 20 --seeds 3 --json OUT.json --figure OUT.png

SETTINGS.yaml maps each method to its candidates, and each candidate to what differs from the configurations. Every
candidate is run once, with a seed of its own, and that of each method is chosen which is most accurate on the first
`--choose` images of `--real`. The chosen ones are run with each seed, and reported on the other images of `--real`, and
on those of `--test` where they are given. The only candidate of a method is not run to be chosen.

Machines differ, and so does their other work. So there are two clocks: `minutes` is wall-clock time without measuring,
and a standard minute is one in which a ResNet-20 would make 5 updates a second, of 256 images of 32 x 32 pixels. That
speed is measured at each point of a curve, on the same threads. `--minutes` are standard minutes: a run stops at the
end of the round in which they have passed.

Each run is `applications/rounds.py` in this process. OUT.json is written after each, and a run that is in it is not
made again, so the script resumes where it was stopped.
"""

import argparse
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from torch.nn import functional

from raydream.applications.rounds import rounds_of
from raydream.compute import use_device
from raydream.config import DistillConfig
from raydream.config.conversion import validate
from raydream.data.files import open_files
from raydream.evaluation.accuracy import accuracy
from raydream.evaluation.intervals import summarize
from raydream.networks.resnet import RESNETS
from raydream.search.space import merged
from raydream.store.atomic import write_json
from raydream.teachers.loading import load_teacher

STANDARD = 5.0
"""updates of a ResNet-20 a second in a standard minute"""
CHOOSING_SEED = 1000
"""of the runs by which settings are chosen; reported runs have seeds from 0"""

Images = tuple[np.ndarray, np.ndarray]
"""uint8 [N,C,H,W] and their labels, int64 [N]"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Choose settings, run what is missing, write after each run, and draw."""
    given = _options(arguments)
    use_device("cpu", given.threads, 0)
    base = functools.reduce(merged, [yaml.safe_load(path.read_text(encoding="utf-8")) for path in given.config])
    candidates = yaml.safe_load(given.settings.read_text(encoding="utf-8"))
    parts = _real_images(given, validate(DistillConfig, base).teacher.input_shape)
    runs: list[dict[str, Any]] = (
        json.loads(given.json.read_text(encoding="utf-8"))["runs"] if given.json.exists() else []
    )

    def run(method: str, candidate: str, seed: int) -> dict[str, Any]:
        settings = merged(base, {**(candidates[method][candidate] or {}), "seed": seed})
        key = {"method": method, "candidate": candidate, "seed": seed, "budget": given.minutes, "settings": settings}
        for known in runs:
            if all(known[name] == value for name, value in key.items()):
                return known
        curve = _curve(validate(DistillConfig, settings), parts, given.minutes, given.reference_updates)
        runs.append({**key, "curve": curve})
        write_json(given.json, {"rows": table(runs), "runs": runs})
        print(method, candidate, seed, json.dumps(curve[-1]), flush=True)
        return runs[-1]

    for method in given.methods or candidates:
        names = list(candidates[method])
        tried = {name: run(method, name, CHOOSING_SEED) for name in names} if len(names) > 1 else {}
        for seed in range(given.seeds):
            run(method, chosen(tried) if tried else names[0], seed)
    if given.figure:
        draw(runs).savefig(given.figure, dpi=120)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="YAML files; a later one replaces what earlier ones say"
    )
    parser.add_argument("--settings", type=Path, required=True, help="YAML: {method: {candidate: {synthesis: {...}}}}")
    parser.add_argument("--methods", nargs="+", help="of the settings; left out: all")
    parser.add_argument("--real", required=True, help=".npz or .parquet file")
    parser.add_argument("--choose", type=int, default=2000, help="images of --real that settings are chosen on")
    parser.add_argument("--test", help=".npz or .parquet file, reported beside the rest of --real")
    parser.add_argument("--minutes", type=float, default=20.0, help="standard minutes of a run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reference-updates", type=int, default=5, help="of the ResNet-20, at each point of a curve")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    return parser.parse_args(arguments)


def _real_images(given: argparse.Namespace, shape: tuple[int, int, int]) -> dict[str, Images]:
    """The images to choose on, and those to report on, which are others."""
    images, labels = _read(given.real, "--real", shape)
    if not 0 < given.choose < len(images):
        raise SystemExit(
            f"error: --choose {given.choose} must be between 1 and {len(images) - 1}, as --real has "
            f"{len(images)} images and some are reported on"
        )
    parts = {
        "choosing": (images[: given.choose], labels[: given.choose]),
        "accuracy": (images[given.choose :], labels[given.choose :]),
    }
    return {**parts, "test": _read(given.test, "--test", shape)} if given.test else parts


def _read(where: str, option: str, shape: tuple[int, int, int]) -> Images:
    source = open_files(where, option, shape)
    return source.read(np.arange(sum(source.parts))), source.labels()


def _curve(config: DistillConfig, parts: dict[str, Images], budget: float, updates: int) -> list[dict[str, float]]:
    """A point for each round's end: steps, both clocks, and the student's accuracy on each part."""
    teacher = load_teacher(config.teacher)
    curve: list[dict[str, float]] = []
    minutes = standard = 0.0
    speed, began = updates_a_second(updates), time.perf_counter()
    for rounds in rounds_of(config, teacher):
        passed = (time.perf_counter() - began) / 60
        before, speed = speed, updates_a_second(updates)
        minutes, standard = minutes + passed, standard + passed * 0.5 * (before + speed) / STANDARD
        known = {name: accuracy(rounds.student, teacher.normalization, *images) for name, images in parts.items()}
        curve.append({"step": rounds.step, "minutes": minutes, "standard_minutes": standard, **known})
        if standard >= budget:
            break
        began = time.perf_counter()
    return curve


def updates_a_second(updates: int) -> float:
    """How fast this process trains a ResNet-20 now, on 256 images of noise; one more update comes before."""
    network = RESNETS["cifar_resnet20"]()
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    images, labels = torch.randn(256, 3, 32, 32), torch.zeros(256, dtype=torch.int64)
    began = 0.0
    for update in range(updates + 1):
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(network(images), labels))
        optimizer.step()
        if update == 0:
            began = time.perf_counter()
    return updates / (time.perf_counter() - began)


def chosen(tried: dict[str, dict[str, Any]]) -> str:
    """The candidate whose run ended with the highest accuracy on the images to choose on; of equals the first."""
    return max(tried, key=lambda name: tried[name]["curve"][-1]["choosing"])


def table(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row for each method, candidate and budget that is reported: mean and 95 % interval over its seeds."""
    by_row: dict[str, list[dict[str, Any]]] = {}
    for run in reported(runs):
        by_row.setdefault(f"{run['method']} {run['candidate']} {run['budget']:g}", []).append(run)
    figures = ("minutes", "standard_minutes", "accuracy", "test")
    return {
        row: {
            figure: summarize([run["curve"][-1][figure] for run in alike])
            for figure in figures
            if figure in alike[0]["curve"][-1]
        }
        for row, alike in by_row.items()
    }


def reported(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the runs that settings were chosen by."""
    return [run for run in runs if run["seed"] != CHOOSING_SEED]


def draw(runs: list[dict[str, Any]]) -> Figure:
    """Accuracy against standard minutes: a line for each run, a color for each method."""
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    methods = list(dict.fromkeys(run["method"] for run in reported(runs)))
    for run in reported(runs):
        points = [(point["standard_minutes"], point["accuracy"]) for point in run["curve"]]
        first = next(each for each in reported(runs) if each["method"] == run["method"])
        label = run["method"] if run is first else None
        axes.plot(*zip(*points, strict=True), color=f"C{methods.index(run['method'])}", alpha=0.7, label=label)
    axes.set_xlabel("standard minutes: images and student")
    axes.set_ylabel("accuracy of the student on real images")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
