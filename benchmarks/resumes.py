"""A run's driver killed at random moments, with all its processes, and resumed: does every run finish?

    python benchmarks/resumes.py --json OUT [--count 50] [--seed 0]

The moments are spread over the whole length of a run, which is measured first: start-up, first shard, checkpoints and
the report included. A run has finished if its job ends with status 0, every batch can be read, and, as it is done in
lockstep, the student's weights are those of the run that nobody disturbed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from raydream.runtime.session import machine_text
from raydream.store.atomic import write_json
from raydream.store.shards import ShardStore
from raydream.teachers.teacher import fingerprint

ROOT = Path(__file__).parents[1]
PHASES = {
    "report": "summary.json",
    "the student at work": "checkpoints/checkpoint_manager_snapshot.json",
    "images being made": "images/r0000-b0000.parquet",
    "Ray starting": "teacher.safetensors",
    "the folder begun": "run.json",
}
"""of a run, the latest first, and the file by which one knows that it has been reached"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, resume, and write after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    dice, runs = random.Random(given.seed), list[dict[str, Any]]()
    given.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "teachers"
        _start(Path(folder) / "first", library).wait()  # trains the teacher that all others find
        began = time.time()
        _start(Path(folder) / "undisturbed", library).wait()
        length_s, wanted = time.time() - began, _outcome(Path(folder) / "undisturbed")
        for index in range(given.count):
            run_dir, moment = Path(folder) / f"run{index}", dice.uniform(0, length_s)
            process = _start(run_dir, library)
            time.sleep(moment)
            over = process.poll() is not None
            if not over:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            reached = (phase for phase, file in PHASES.items() if (run_dir / file).exists())
            phase = "over" if over else next(reached, "before the folder")
            again = _start(run_dir, library, resume=(run_dir / "run.json").exists())
            try:
                status = again.wait(timeout=600)
            except subprocess.TimeoutExpired:
                os.killpg(again.pid, signal.SIGKILL)
                status = again.wait()
            finished = status == 0 and _outcome(run_dir) == wanted
            runs.append({"killed_after_s": moment, "phase": phase, "status": status, "finished": finished})
            print(json.dumps(runs[-1]), flush=True)
            write_json(given.json, _result(runs, length_s))
    print(json.dumps({name: value for name, value in _result(runs, length_s).items() if name != "runs"}, indent=1))


def _start(run_dir: Path, library: Path, resume: bool = False) -> subprocess.Popen[bytes]:
    options = [
        "--config",
        "tests/tiny.yaml",
        "--training.library",
        str(library),
        "--rounds.lockstep",
        "true",
        "--reuse",
        "",
    ]
    options = ["--resume", str(run_dir)] if resume else [*options, "--run-dir", str(run_dir)]
    command, quiet = [sys.executable, "jobs/distill.py", *options], subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet, start_new_session=True)


def _outcome(run_dir: Path) -> tuple[list[str], str]:
    """The batches that are there and can be read, and the fingerprint of the student's weights."""
    store = ShardStore(run_dir / "images")
    ids = [str(store.read(batch).id) for batch in store.committed()]
    return ids, fingerprint(safetensors.numpy.load_file(run_dir / "student.safetensors"))


def _result(runs: list[dict[str, Any]], length_s: float) -> dict[str, Any]:
    return {
        "killed": sum(run["phase"] != "over" for run in runs),
        "finished": sum(run["finished"] for run in runs),
        "by_phase": dict(Counter(run["phase"] for run in runs)),
        "undisturbed_s": length_s,
        "runs": runs,
        **machine_text(),
    }


if __name__ == "__main__":
    main()
