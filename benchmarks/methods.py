"""Compare synthesizers at one equal budget of images, updates and distillation steps, over several seeds.

Runs of many seeds go side by side, one process and one thread each, in lockstep and without Ray; `jobs/distill.py`
with `--rounds.lockstep true` gives the same bits. What is chosen is chosen with `--split validation`; `test` is for
figures that are reported.

    python benchmarks/methods.py --seeds 8 --json benchmarks/results/methods.json
    python benchmarks/methods.py --split validation --seed-offset 100 --vary synthesis.coefficients.competition=0,300
"""

import argparse
import multiprocessing
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml

from raydream.applications.rounds import rounds_of
from raydream.config import METHODS, DistillConfig
from raydream.config.conversion import as_dict, validate
from raydream.data import load_data
from raydream.evaluation.accuracy import accuracy
from raydream.evaluation.intervals import summarize
from raydream.schedule import Schedule
from raydream.search.space import settings_at
from raydream.store.atomic import write_json
from raydream.supervised.library import trained_teacher


def main() -> None:
    """Run all (variant, seed) pairs and print the table."""
    options = _options()
    settings = yaml.safe_load(Path(options.config).read_text(encoding="utf-8"))
    filled = as_dict(validate(DistillConfig, settings))
    field, _, values = options.vary.partition("=")
    variants = {value: settings_at(filled, {field: yaml.safe_load(value)}) for value in values.split(",")}
    configs = {name: validate(DistillConfig, variant) for name, variant in variants.items()}
    first = next(iter(configs.values()))
    trained_teacher(first.teacher, first.training, first.data)  # once, before the processes look for it
    seeds = range(options.seed_offset, options.seed_offset + options.seeds)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in configs}
    jobs = [(name, settings_at(variants[name], {"seed": seed})) for seed in seeds for name in configs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        for (name, settings), run in zip(jobs, pool.map(_run, [job[1] for job in jobs]), strict=True):
            results[name].append(run)
            last = run["rounds"][-1]
            print(
                f"{name:>16} seed {settings['seed']:<4} {last[options.split]:.1%}  ({run['seconds']:.0f} s)", flush=True
            )
            if options.json:
                _write(Path(options.json), options, first, results)
    _print(results, options.split)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits_methods.yaml")
    parser.add_argument(
        "--vary", default=f"synthesis.method={','.join(METHODS)}", help="FIELD=VALUE,VALUE,…: a row each"
    )
    parser.add_argument("--seeds", type=int, default=8, help="runs per row")
    parser.add_argument("--seed-offset", type=int, default=0, help="the first seed")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--processes", type=int, default=2, help="side by side, one thread each")
    parser.add_argument("--json", help="where to write the results")
    return parser.parse_args()


def _run(settings: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    began, config = time.perf_counter(), validate(DistillConfig, settings)
    teacher, _ = trained_teacher(config.teacher, config.training, config.data)
    real = load_data(config.data, config.teacher)
    assert real is not None
    splits = {"validation": real.validation, "test": real.test}
    rounds: list[dict[str, float]] = []
    for made in rounds_of(config, teacher):
        shares = {
            name: accuracy(made.student, teacher.normalization, split.images, split.labels)
            for name, split in splits.items()
        }
        rounds.append({"step": made.step, **shares})
    newest = made.batches[-1].provenance
    return {
        "seed": config.seed,
        "rounds": rounds,
        "seconds": time.perf_counter() - began,
        "losses": newest.losses,
        "target_share": statistics.mean(batch.provenance.target_share for batch in made.batches),
    }


def _table(results: dict[str, list[dict[str, Any]]], split: str) -> dict[str, dict[str, Any]]:
    rows = {name: summarize([run["rounds"][-1][split] for run in runs]) for name, runs in results.items() if runs}
    base = rows.get("deep_inversion", next(iter(rows.values())))["values"]
    for name, row in rows.items():
        paired = [one - other for one, other in zip(row["values"], base, strict=False)]
        row["minus_deep_inversion" if "deep_inversion" in rows else "minus_first"] = summarize(paired)
        row["target_share"] = statistics.mean(run["target_share"] for run in results[name])
    return rows


def _write(
    path: Path, options: argparse.Namespace, config: DistillConfig, results: dict[str, list[dict[str, Any]]]
) -> None:
    schedule = Schedule.of(config)
    budget = {
        "images": schedule.total_batches * schedule.batch_images,
        "updates_per_batch": config.synthesis.iterations,
        "distillation_steps": schedule.total_steps,
    }
    write_json(
        path,
        {
            "machine": f"{platform.machine()}, torch {torch.__version__}, one thread a run",
            "split": options.split,
            "vary": options.vary,
            "budget": budget,
            "rows": _table(results, options.split),
            "runs": results,
            "config": as_dict(config),
        },
    )


def _print(results: dict[str, list[dict[str, Any]]], split: str) -> None:
    print(f"\n{'':>16}  student accuracy, {split} split   paired difference to the base   images as targeted")
    for name, row in _table(results, split).items():
        paired = row.get("minus_deep_inversion") or row["minus_first"]
        print(
            f"{name:>16}  {row['mean']:.1%} ± {row['interval']:.1%}   {paired['mean']:+.2%} ± {paired['interval']:.2%}"
            f"   {row['target_share']:.0%}"
        )


if __name__ == "__main__":
    main()
