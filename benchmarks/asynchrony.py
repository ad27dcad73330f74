"""What does it cost, and bring, to let generators and student drift apart?

    python benchmarks/asynchrony.py --json OUT [--config configs/digits.yaml] [--seeds 3]

Whole runs of `raydream distill` take turns: in lockstep, with the default bound (a round, or what settings need; see
docs/concepts.md), and with one of four rounds. Noted are the accuracy on real test images, the duration of the rounds
relative to those of the same seed in lockstep, the student's waits, and the age of the student that a batch competed
with when it joined, in distillation steps. A run that is in the file is not made again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from raydream.config import DistillConfig
from raydream.config.conversion import validate
from raydream.runtime.session import machine_text
from raydream.store.atomic import write_json


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/digits.yaml"))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args(arguments)
    runs: list[dict[str, Any]] = (
        json.loads(given.json.read_text(encoding="utf-8"))["runs"] if given.json.exists() else []
    )
    options = _settings(given.config)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            for name, words in options.items():
                if any((run["setting"], run["seed"]) == (name, seed) for run in runs):
                    continue
                run_dir = Path(folder) / f"{name}-{seed}".replace(" ", "-")
                runs.append({"setting": name, "seed": seed, **_run(given.config, seed, words, run_dir)})
                print(json.dumps(runs[-1]), flush=True)
                write_json(given.json, _summary(options, runs))
    write_json(given.json, _summary(options, runs))


def _settings(path: Path) -> dict[str, list[str]]:
    """Return the options of each setting, by its name."""
    config = validate(DistillConfig, yaml.safe_load(path.read_text(encoding="utf-8")))
    round_draws = config.buffer.samples_per_insert * config.rounds.batches * config.synthesis.batch_size
    far = ["--buffer.error_bound", str(4 * round_draws)]
    return {"lockstep": ["--rounds.lockstep", "true"], "default bound": [], "four rounds": far}


def _run(config: Path, seed: int, words: list[str], run_dir: Path) -> dict[str, Any]:
    shared = ["--config", str(config), "--seed", str(seed), "--reuse", "", "--run-dir", str(run_dir)]
    shared += ["--training.library", str(run_dir.parent / "teachers")]
    command = [sys.executable, "-m", "raydream", "distill", *shared, *words]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(done.stdout)
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    metrics = pd.read_parquet(run_dir / "metrics.parquet")

    def values(name: str) -> pd.Series:
        return metrics.loc[metrics["name"] == name, "value"]

    return {
        "student_accuracy": summary["student_accuracy"],
        "student_accuracy_best": summary["student_accuracy_best"],
        "wall_s": summary["wall_s"],
        "seconds": summary["seconds_by_stage"],
        "student_waited_s": float(values("student/waited_s").sum()),
        "staleness_steps": float(values("staleness_steps").mean()),
    }


def _summary(options: dict[str, list[str]], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over seeds, with standard deviations, beside the runs."""
    lockstep = {run["seed"]: run["seconds"]["rounds"] for run in runs if run["setting"] == "lockstep"}
    settings = {}
    for name in options:
        of = [run for run in runs if run["setting"] == name]
        if of:
            accuracies = [run["student_accuracy"] for run in of]
            settings[name] = {
                "seeds": len(of),
                "student_accuracy": statistics.mean(accuracies),
                "student_accuracy_std": statistics.stdev(accuracies) if len(of) > 1 else None,
                "rounds_of_lockstep": statistics.median(run["seconds"]["rounds"] / lockstep[run["seed"]] for run in of),
                "student_waited_s": statistics.mean(run["student_waited_s"] for run in of),
                "staleness_steps": statistics.mean(run["staleness_steps"] for run in of),
            }
    return {"settings": settings, "runs": runs, "machine": machine_text()}


if __name__ == "__main__":
    main()
