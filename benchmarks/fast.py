"""Accuracy against wall-clock: what students learn from images of each method, and how long that took.

    python benchmarks/fast.py --config configs/digits_methods.yaml --settings benchmarks/settings/clock_digits.yaml \
        --seeds 3 --split test --json OUT.json --figure OUT.png
    python benchmarks/fast.py --config configs/cifar10_resnet20_fast.yaml \
        --settings benchmarks/settings/clock_cifar10.yaml --real REAL.npz \
        --seeds 1 --processes 1 --threads 2 --most-s 1800 --json OUT.json --figure OUT.png

SETTINGS.yaml maps a name to what differs from the configuration; names that differ in a number at their end are one
line of the figure.
Each run is `applications/rounds.py` in a process of its own, so without Ray, and stops at the end of the round in which
`--most-s` passes. Real images (the data of the configuration, or an .npz file with `x`, uint8 [N,H,W,C], and `y`) are
what students are measured on, and the time of measuring is not counted. A run that is in OUT.json is not made again.
Seconds depend on what else the machine does; `cpu_s`, the CPU time of the run's process, hardly does.
"""

import argparse
import json
import multiprocessing
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from students import merged

from raydream.applications.rounds import rounds_of
from raydream.compute import use_device
from raydream.config import DistillConfig
from raydream.config.conversion import validate
from raydream.data import load_data
from raydream.evaluation.accuracy import accuracy
from raydream.evaluation.intervals import summarize
from raydream.store.atomic import write_json
from raydream.supervised.library import trained_teacher
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, write after each run, and draw."""
    given = _options(arguments)
    base, settings = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (given.config, given.settings))
    done: list[dict[str, Any]] = (
        json.loads(given.json.read_text(encoding="utf-8"))["runs"] if given.json.exists() else []
    )
    jobs = [
        (name, seed, merged(base, {**(changes or {}), "seed": seed}))
        for seed in range(given.seed_offset, given.seed_offset + given.seeds)
        for name, changes in settings.items()
        if not any(all(run[key] == value for key, value in _keys(name, seed, given).items()) for run in done)
    ]
    if jobs:
        _teacher(validate(DistillConfig, jobs[0][2]))  # once, before the processes look for it
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.processes, mp_context=context) as pool:
        running = [pool.submit(_run, *job, given) for job in jobs]
        for finished in as_completed(running):
            done.append(finished.result())
            told = {name: value for name, value in done[-1].items() if name != "curve"}
            print(json.dumps(told), flush=True)
            write_json(given.json, {"rows": table(done, settings), "runs": done})
    if given.figure:
        draw(table(done, settings), done).savefig(given.figure, dpi=120)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True, help="YAML: {name: {synthesis: {...}}}")
    parser.add_argument("--real", type=Path, help=".npz file; left out: the data that the configuration names")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="of those data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed-offset", type=int, default=0, help="the first seed")
    parser.add_argument("--most-s", type=float, default=float("inf"), help="seconds of a run")
    parser.add_argument("--processes", type=int, default=2, help="side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    return parser.parse_args(arguments)


def _teacher(config: DistillConfig) -> Teacher:
    if config.data.name == "none":
        return load_teacher(config.teacher)
    return trained_teacher(config.teacher, config.training, config.data)[0]


def _real(config: DistillConfig, given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    if given.real is not None:
        found = np.load(given.real)
        return found["x"].transpose(0, 3, 1, 2), found["y"]
    data = load_data(config.data, config.teacher)
    if data is None:
        raise SystemExit("there is nothing to measure on: name --real, or data in the configuration")
    split = data.validation if given.split == "validation" else data.test
    return split.images, split.labels


def _keys(name: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """What a run in --json must have to be this one."""
    measured_on = given.split if given.real is None else str(given.real)
    return {"name": name, "seed": seed, "config": str(given.config), "measured_on": measured_on}


def _run(name: str, seed: int, settings: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    use_device("cpu", given.threads, 0)
    config = validate(DistillConfig, settings)
    teacher, (images, labels) = _teacher(config), _real(config, given)
    curve: list[dict[str, float]] = []
    wall, cpu = -time.perf_counter(), -time.process_time()
    for rounds in rounds_of(config, teacher):
        began, cpu_began = time.perf_counter(), time.process_time()
        share = accuracy(rounds.student, teacher.normalization, images, labels)
        curve.append({"step": rounds.step, "seconds": wall + began, "cpu_s": cpu + cpu_began, "accuracy": share})
        wall, cpu = wall - (time.perf_counter() - began), cpu - (time.process_time() - cpu_began)
        if curve[-1]["seconds"] > given.most_s:
            break
    return {
        **_keys(name, seed, given),
        "method": config.synthesis.method,
        "images": sum(len(batch) for batch in rounds.batches),
        "updates_per_batch": config.synthesis.iterations,
        "target_share": float(np.mean([batch.provenance.target_share for batch in rounds.batches])),
        **curve[-1],
        "curve": curve,
    }


def table(runs: list[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A row for each name that has runs: mean and 95 % interval of accuracy, seconds and CPU seconds over the seeds."""
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        by_name[run["name"]].append(run)
    return {
        name: {
            "method": by_name[name][0]["method"],
            **{
                figure: summarize([run[figure] for run in by_name[name]]) for figure in ("accuracy", "seconds", "cpu_s")
            },
        }
        for name in names
        if by_name[name]
    }


def draw(rows: dict[str, dict[str, Any]], runs: list[dict[str, Any]]) -> Figure:
    """A line through the points of names that differ in a number at their end, or how it went where there is one."""
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[str, list[str]] = defaultdict(list)
    for name in rows:
        lines[re.sub(r"_\d+$", "", name)].append(name)
    for line, names in lines.items():
        points = [
            (rows[name]["seconds"]["mean"], rows[name]["accuracy"]["mean"], rows[name]["accuracy"]["interval"])
            for name in names
        ]
        seconds, means, intervals = zip(*sorted(points), strict=True)
        drawn = axes.errorbar(seconds, means, np.nan_to_num(intervals), marker="o", capsize=3, label=line)
        for run in runs:
            if len(names) == 1 and run["name"] == names[0]:
                went = [(point["seconds"], point["accuracy"]) for point in run["curve"]]
                axes.plot(*zip(*went, strict=True), color=drawn[0].get_color(), alpha=0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("seconds of a run: images and student")
    axes.set_ylabel("accuracy of the student on real images")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
