"""What starting costs: the first minute of jobs by several versions of the code, in turns.

    python benchmarks/start.py --trees before=../before after=. --turns 3 --json benchmarks/results/start.json

A tree is a folder with a checkout, by a name for the table. Jobs: the demo, a tiny distillation in lockstep
(`tests/tiny.yaml`), and a student of a few epochs on 1,000 random images. Each trains its teacher and starts Ray.
CPU-seconds are those of all processes (Linux and root: a control group of the kernel counts them; `.ci/measured.py`),
and the measure to go by where others use the machine, too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
STEP_S = 0.02
"""a student's stretch of work that is shorter than this is no step: it was waiting for its first images"""
FIGURES = ("first_step_s", "wall_s", "cpu_s")
SMALL = """
teacher: {network: digits, arguments: {width: 8}}
training: {epochs: 4}
epochs: 3
student: {arguments: {width: 4}, batch_size: 100}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write after each turn, and print medians and ratios to the first tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", nargs="+", required=True, help="NAME=FOLDER, the first is compared with")
    parser.add_argument("--jobs", nargs="+", default=["demo", "tiny", "transfer"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    trees = {name: Path(folder).resolve() for name, _, folder in (each.partition("=") for each in given.trees)}
    rows: list[dict[str, Any]] = (
        json.loads(given.json.read_text(encoding="utf-8"))["rows"] if given.json.exists() else []
    )
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.turns):
            for job in given.jobs:
                for name, tree in trees.items():
                    rows.append({"tree": name, "job": job, "load": os.getloadavg()[0], **measured(job, tree, folder)})
                    print(rows[-1], flush=True)
                    result = {"rows": rows, "medians": medians(rows)}
                    given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(pd.DataFrame(medians(rows)).to_string())


def measured(job: str, tree: Path, folder: str) -> dict[str, float]:
    """Seconds of a run of a job by the code of a tree."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run_dir, ledger = Path(place) / "run", Path(place) / "ledger"
        words = [sys.executable, *options(job, Path(folder), Path(place)), "--run-dir", str(run_dir)]
        command = [sys.executable, str(ROOT / ".ci" / "measured.py"), job, *words]
        environment = {**os.environ, "PYTHONPATH": str(tree / "platform"), "LEDGER": str(ledger)}
        began = time.monotonic()
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        wall_s = time.monotonic() - began
        assert done.returncode == 0, done.stdout + done.stderr
        user, system = (float(ledger.read_text(encoding="utf-8").split()[at]) for at in (3, 6))
        return {"wall_s": wall_s, "cpu_s": user + system, "first_step_s": first_step_s(run_dir)}


def options(job: str, folder: Path, place: Path) -> list[str]:
    """The command of a job, with each tree's own settings; writes the files that it needs."""
    library = ["--training.library", str(place / "teachers")]
    if job == "demo":
        return ["jobs/distill.py", "--config", "configs/digits.yaml", "--reuse", "", *library]
    if job == "tiny":
        return ["jobs/distill.py", "--config", "tests/tiny.yaml", "--rounds.lockstep", "true", *library]
    images, settings = folder / "images.npz", folder / "transfer.yaml"
    np.savez(images, x=np.random.default_rng(0).integers(0, 256, (1000, 8, 8), dtype=np.uint8))
    settings.write_text(SMALL, encoding="utf-8")
    return ["jobs/transfer.py", "--config", str(settings), "--images", str(images), *library]


def first_step_s(run_dir: Path) -> float:
    """When the student began its first step, in seconds since the job began."""
    metrics = pd.read_parquet(run_dir / "metrics.parquet")
    works = metrics[(metrics["name"] == "span/train") & (metrics["duration_s"] > STEP_S)]
    return float(works["time_s"].min())


def medians(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians by job and tree, and their ratios to those of the first tree."""
    found: list[dict[str, Any]] = []
    first = rows[0]["tree"]
    for job in dict.fromkeys(row["job"] for row in rows):
        for tree in dict.fromkeys(row["tree"] for row in rows):
            turns = [row for row in rows if (row["job"], row["tree"]) == (job, tree)]
            if not turns:
                continue
            middle = {name: statistics.median(row[name] for row in turns) for name in FIGURES}
            base = next((each for each in found if (each["job"], each["tree"]) == (job, first)), middle)
            ratios = {f"{name.removesuffix('_s')}_ratio": middle[name] / base[name] for name in middle}
            found.append({"job": job, "tree": tree, "turns": len(turns), **middle, **ratios})
    return found


if __name__ == "__main__":
    main()
