"""The same student from scratch on images of each source, beside the teacher and beside real images.

    python benchmarks/transfer.py --sources deep_inversion --count 4096 --json benchmarks/results/digits_transfer.json
    python benchmarks/transfer.py --config configs/cifar10_resnet20_transfer.yaml --sources deep_inversion,PATH ...

A source is a synthesizer (noise, deepdream, deep_inversion, adaptive), `real` (the training split of the data, as many
images as the others have), or a path: a set of somebody else's images, as --images of jobs/transfer.py takes it. All
have the same number of images, updates and distillation steps. Images are made once for each seed and kept in
--images; those of `adaptive` compete with a student of their own, as in jobs/distill.py, in rounds that add up to as
many. Runs go side by side, one process and one thread each, without Ray; what is in --json already is not run again.
Figures are of the last student on the test split.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from raydream.applications.transfer import run_epochs
from raydream.config import BufferConfig, DistillConfig, SynthesisConfig, TransferConfig
from raydream.config.conversion import as_dict, validate
from raydream.data import check_data
from raydream.evaluation.accuracy import logits_of
from raydream.evaluation.comparison import beside
from raydream.evaluation.intervals import summarize
from raydream.networks import parameters_of
from raydream.reproduction.sets import making, pixels_of
from raydream.store.atomic import write_json
from raydream.store.folders import LocalFolder
from raydream.supervised.library import trained_teacher
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher

SYNTHESIZERS = ("noise", "deepdream", "deep_inversion", "adaptive")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, write after each run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/digits_transfer.yaml"))
    parser.add_argument("--sources", default=",".join([*SYNTHESIZERS, "real"]), help="with commas between them")
    parser.add_argument("--count", type=int, default=896, help="images of each source")
    parser.add_argument("--seeds", type=int, default=8, help="runs of each source")
    parser.add_argument("--seed-offset", type=int, default=0, help="first seed")
    parser.add_argument("--epochs", type=int, help="instead of the configuration's")
    parser.add_argument("--processes", type=int, default=2, help="side by side, one thread each")
    parser.add_argument("--images", type=Path, default=Path("runs/transfer_images"), help="folder to keep images in")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    for folder in (given.images, given.json.parent):
        folder.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load(given.config.read_text(encoding="utf-8")) | (
        {"epochs": given.epochs} if given.epochs else {}
    )
    config = validate(TransferConfig, settings | {"new_images": given.count})
    if given.count % config.synthesis.batch_size:
        parser.error(
            f"--count {given.count}: must be a multiple of synthesis.batch_size, {config.synthesis.batch_size}"
        )
    _teacher_of(config)  # once, before the processes look for it
    done: list[dict[str, Any]] = (
        json.loads(given.json.read_text(encoding="utf-8"))["runs"] if given.json.exists() else []
    )
    there = {(run["source"], run["seed"]) for run in done}
    seeds = range(given.seed_offset, given.seed_offset + given.seeds)
    wanted = [(source, seed) for seed in seeds for source in given.sources.split(",")]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.processes, mp_context=context) as pool:
        jobs = [
            pool.submit(_run, replace(config, seed=seed), source, given.images)
            for source, seed in wanted
            if (source, seed) not in there
        ]
        for job in as_completed(jobs):
            done.append(job.result())
            print(_line(done[-1]), flush=True)
            write_json(given.json, {"table": _table(done), "runs": done, "config": as_dict(config)})
    _print(_table(done))


def _run(config: TransferConfig, source: str, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    teacher, real = _teacher_of(config), check_data(config.data, config.teacher, train=source == "real")
    assert real is not None
    began = time.perf_counter()
    made_by = _source(config, source)
    images = pixels_of(made_by, teacher, real, LocalFolder(folder), config.new_images, config.seed)
    made = time.perf_counter()
    student = run_epochs(config.student, teacher, images, config.epochs, config.seed)
    labels, told = real.test.labels, logits_of(student, teacher.normalization, real.test.images)
    expected = logits_of(teacher.network, teacher.normalization, real.test.images)
    figures = beside(told, expected, labels)
    return {
        "source": source,
        "seed": config.seed,
        "student_accuracy": float((told.argmax(1) == labels).mean()),
        "teacher_accuracy": float((expected.argmax(1) == labels).mean()),
        "student_parameters": parameters_of(student),
        "teacher_parameters": parameters_of(teacher.network),
        **{name: value for name, value in figures.items() if isinstance(value, float)},
        "images": len(images),
        "test_images": len(labels),
        "image_seconds": made - began,
        "student_seconds": time.perf_counter() - made,
    }


def _teacher_of(config: TransferConfig) -> Teacher:
    if config.teacher.checkpoint is not None:
        return load_teacher(config.teacher)
    return trained_teacher(config.teacher, config.training, config.data)[0]


def _source(config: TransferConfig, source: str) -> DistillConfig | str:
    """As `sets.pixels_of` takes it; each image is drawn 100 times meanwhile, as in configs/digits.yaml."""
    if source not in SYNTHESIZERS:
        return source
    coefficients = replace(config.synthesis.coefficients, competition=30.0)
    settings = as_dict(replace(config.synthesis, coefficients=coefficients)) | {"method": source}
    synthesis = validate(SynthesisConfig, settings)
    often = BufferConfig(samples_per_insert=100)
    return making(config.teacher, synthesis, config.student, often, config.new_images, config.seed)


def _table(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Means and 95 % intervals by source, and the differences to DeepInversion paired by seed."""
    by_source = {source: _by_seed(runs, source) for source in dict.fromkeys(run["source"] for run in runs)}
    base = by_source.get("deep_inversion", {})
    rows = {}
    for source, of in by_source.items():
        row: dict[str, Any] = {
            name: summarize([run[name] for run in of.values()])
            for name in ("student_accuracy", "agreement", "student_calibration_error", "image_seconds")
        }
        behind = [run["teacher_accuracy"] - run["student_accuracy"] for run in of.values()]
        paired = [run["student_accuracy"] - base[seed]["student_accuracy"] for seed, run in of.items() if seed in base]
        row |= {"behind_teacher": summarize(behind), "runs": len(of)}
        rows[source] = row | ({"minus_deep_inversion": summarize(paired)} if paired else {})
    return rows


def _by_seed(runs: list[dict[str, Any]], source: str) -> dict[int, dict[str, Any]]:
    return {run["seed"]: run for run in runs if run["source"] == source}


def _line(run: dict[str, Any]) -> str:
    seconds = f"images {run['image_seconds']:.0f} s, student {run['student_seconds']:.0f} s"
    return f"{run['source']:>16} seed {run['seed']}: {run['student_accuracy']:.1%} ({seconds})"


def _print(table: dict[str, dict[str, Any]]) -> None:
    print(f"\n{'':>16}  student, test split  behind the teacher  minus DeepInversion  agreement  calibration error")
    for source, row in table.items():
        shown = [
            f"{row[name]['mean']:.1%} ± {row[name]['interval']:.1%}" for name in ("student_accuracy", "behind_teacher")
        ]
        paired = row.get("minus_deep_inversion")
        shown.append(f"{paired['mean']:+.1%} ± {paired['interval']:.1%}" if paired else "")
        shown += [f"{row[name]['mean']:.1%}" for name in ("agreement", "student_calibration_error")]
        print(f"{source:>16}  {shown[0]:>19}  {shown[1]:>18}  {shown[2]:>19}  {shown[3]:>9}  {shown[4]:>17}")


if __name__ == "__main__":
    main()
