"""Runs with random faults: what was accepted, lost and duplicated, and how long nothing went on.

    python benchmarks/soak.py --json OUT [--minutes 10] [--seed 0]

Digits runs follow each other until the time is over; every 20 seconds something is killed, stopped or damaged. A batch
counts as accepted once its shard was seen; it is lost if it cannot be read at the run's end, and duplicated if one of
its images is there twice. A stall is a time without a new shard or a checkpoint of the student (one a round).
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from processes import descendants

from raydream.runtime.checkpoints import steps_saved
from raydream.runtime.session import machine_text
from raydream.store.atomic import write_json
from raydream.store.folders import folder_at
from raydream.store.shards import ShardStore

ROOT = Path(__file__).parents[1]
EVERY_S = 20.0


class Run:
    """One digits run, which is resumed whenever its driver was killed."""

    def __init__(self, folder: Path, library: Path, seed: int) -> None:
        self.folder, self.accepted = folder, set[str]()
        self.longest_stall_s, self._last_news, self._seen = 0.0, time.time(), ("", 0)
        self._options = ["--config", "configs/digits.yaml", "--training.library", str(library), "--seed", str(seed)]
        self._options += [
            "--rounds.count",
            "12",
            "--generators.patience_s",
            "15",
            "--reuse",
            "",
            "--run-dir",
            str(folder),
        ]
        self.process = self._start(self._options)

    def _start(self, options: list[str]) -> subprocess.Popen[str]:
        command = [sys.executable, "jobs/distill.py", *options]
        return subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def resume(self) -> None:
        """Go on after the driver was killed."""
        self.process.communicate()
        begun = (self.folder / "run.json").exists()
        self.process = self._start(["--resume", str(self.folder)] if begun else self._options)

    def look(self) -> None:
        """See what has been committed, and how far the student is."""
        shards = {path.stem for path in (self.folder / "images").glob("r*.parquet")}
        self.accepted |= shards
        now = time.time()
        seen = (",".join(sorted(shards)), steps_saved(folder_at(self.folder / "checkpoints")))
        if seen != self._seen:
            self._seen, self._last_news = seen, now
        self.longest_stall_s = max(self.longest_stall_s, now - self._last_news)

    def outcome(self) -> dict[str, Any]:
        """Lost and duplicated batches, and the student's accuracy."""
        store = ShardStore(self.folder / "images")
        whole = {str(store.read(batch).id) for batch in store.committed()}
        rows = pd.read_parquet(self.folder / "images", columns=["batch", "row"])
        summary = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return {
            "accepted": len(self.accepted),
            "lost": len(self.accepted - whole),
            "duplicated": rows[rows.duplicated()]["batch"].nunique(),
            "longest_stall_s": self.longest_stall_s,
            "student_accuracy": summary["student_accuracy"],
        }


def kill(run: Run, kind: str, with_signal: int = signal.SIGKILL) -> bool:
    """Signal one process of a kind; False where there is none."""
    for pid, command in descendants(run.process.pid).items():
        if command.startswith(kind):
            os.kill(pid, with_signal)
            return True
    return False


def kill_driver(run: Run) -> bool:
    """Kill the driver with all its processes, and go on."""
    os.killpg(run.process.pid, signal.SIGKILL)
    run.resume()
    return True


def damage_shard(run: Run) -> bool:
    """Flip a byte of a shard; whoever reads it next finds it damaged."""
    shards = sorted((run.folder / "images").glob("r*.parquet"))
    if not shards:
        return False
    content = bytearray(shards[len(shards) // 2].read_bytes())
    content[len(content) // 2] ^= 0xFF
    shards[len(shards) // 2].write_bytes(content)
    return True


FAULTS: dict[str, Callable[[Run], bool]] = {
    "generator killed": lambda run: kill(run, "ray::Generator"),
    "generator stopped": lambda run: kill(run, "ray::Generator", signal.SIGSTOP),
    "buffer killed": lambda run: kill(run, "ray::Buffer"),
    "student killed": lambda run: kill(run, "ray::SingleWorker.learn"),
    "evaluator killed": lambda run: kill(run, "ray::Evaluator"),
    "shard damaged": damage_shard,
    "driver killed": kill_driver,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and write after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    dice, end, faults = random.Random(given.seed), time.time() + 60 * given.minutes, Counter[str]()
    outcomes: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        while time.time() < end:
            run = Run(Path(folder) / f"run{len(outcomes)}", Path(folder) / "teachers", given.seed + len(outcomes))
            _torment(run, dice, end, faults)
            outcomes.append(run.outcome())
            print(json.dumps(outcomes[-1]), flush=True)
    table = pd.DataFrame(outcomes)
    result = {
        "faults": dict(faults),
        **{name: int(table[name].sum()) for name in ("accepted", "lost", "duplicated")},
        "longest_stall_s": float(table["longest_stall_s"].max()),
        "student_accuracy": float(table["student_accuracy"].mean()),
        "runs": outcomes,
        "machine": machine_text(),
    }
    print(json.dumps({name: value for name, value in result.items() if name != "runs"}, indent=1))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.json, result)


def _torment(run: Run, dice: random.Random, end: float, faults: Counter[str]) -> None:
    """Let a run go on to its end, with a fault every now and then until the time is over."""
    due = time.time() + EVERY_S
    while run.process.poll() is None:
        run.look()
        if time.time() >= due and time.time() < end:
            name = dice.choice(list(FAULTS))
            if FAULTS[name](run):
                faults[name] += 1
                print(f"{end - time.time():4.0f} s left: {name}", flush=True)
            due = time.time() + EVERY_S
        time.sleep(0.25)
    run.look()
    if run.process.returncode:
        raise SystemExit(f"a run failed:\n{run.process.communicate()[0]}")


if __name__ == "__main__":
    main()
