"""Runs with random faults: what was accepted, lost and duplicated, and how long nothing went on.

    python benchmarks/soak.py --json OUT [--minutes 120] [--undisturbed 3] [--seed 0]

Digits runs follow each other until the time is over: first some undisturbed, to compare with, then those in which every
20 seconds a fault is drawn: processes are killed, stopped or left without memory, the storage is damaged, full, slow or
failing, Python's clock is set (faults.c). A run that a fault has ended is resumed. A batch counts as accepted once its
shard was seen; it is lost if it cannot be read at the run's end, and duplicated if one of its images is there twice. A
stall is a time without a new shard or a checkpoint of the student (one a round). An end that no fault explains is
noted. The file is written after each disturbed run.

A disk is full on a file system in memory, which only root can mount; where it cannot, that fault is left out.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from faults import Faults
from processes import descendants

from raydream.errors import ShardError
from raydream.runtime.checkpoints import steps_saved
from raydream.runtime.session import machine_text
from raydream.store.atomic import write_json
from raydream.store.folders import folder_at
from raydream.store.shards import ShardStore

ROOT = Path(__file__).parents[1]
EVERY_S = 20.0
LASTS_S = 15.0
"""seconds that a disk is full, and storage slow or failing"""
DISK_MIB = 64
MOST_FAILURES = 3
"""ends of one run that no fault explains, after which the soak itself fails"""


class Run:
    """One digits run, which is resumed whenever a fault has ended it.

    Args:
        disk: where its folder is.
        faults: of the machine, as its processes meet them.
    """

    def __init__(self, disk: Path, library: Path, faults: Faults, seed: int) -> None:
        self.folder, self.faults, self.accepted = disk / "run", faults, set[str]()
        self.longest_stall_s, self._last_news, self._seen = 0.0, time.monotonic(), ("", 0)
        self._began, self._undo_at = time.monotonic(), 0.0
        self._undo: Callable[[], None] | None = None
        self._options = ["--config", "configs/digits.yaml", "--training.library", str(library), "--seed", str(seed)]
        self._options += ["--rounds.count", "12", "--generators.patience_s", "15", "--reuse", ""]
        self._options += ["--run-dir", str(self.folder)]
        self.process = self._start(self._options)
        self.may_end = False
        """whether a fault since the last start may have ended it"""
        self.failures = list[str]()
        """the last line of each end that no fault explains"""

    def _start(self, options: list[str]) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "jobs/distill.py", *options], subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.faults.environment,
            text=True,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def resume(self) -> None:
        """Start it again, without what has ended it."""
        self.undo()
        said = self.process.communicate()[0].strip().splitlines()
        if not self.may_end:
            self.failures += [line for line in said if line.startswith(("failed:", "error:"))][-1:] or said[-1:]
        if len(self.failures) > MOST_FAILURES:
            raise SystemExit(f"a run failed again and again: {self.failures}")
        begun = (self.folder / "run.json").exists()
        self.process, self.may_end = self._start(["--resume", str(self.folder)] if begun else self._options), False

    def lasts(self, undo: Callable[[], None]) -> None:
        """Have a fault undone after a while; the one before it was undone."""
        self._undo, self._undo_at = undo, time.monotonic() + LASTS_S

    def undo(self) -> None:
        """Undo the fault that lasts."""
        if self._undo is not None:
            self._undo()
        self._undo = None

    def look(self) -> None:
        """See what has been committed, and how far the student is; undo what has lasted long enough."""
        shards = {path.stem for path in (self.folder / "images").glob("r*.parquet")}
        self.accepted |= shards
        now = time.monotonic()
        seen = (",".join(sorted(shards)), steps_saved(folder_at(self.folder / "checkpoints")))
        if seen != self._seen:
            self._seen, self._last_news = seen, now
        self.longest_stall_s = max(self.longest_stall_s, now - self._last_news)
        if now > self._undo_at:
            self.undo()

    def outcome(self) -> dict[str, Any]:
        """Lost and duplicated batches, and the student's accuracy."""
        store = ShardStore(self.folder / "images")
        whole = set[str]()
        for batch in store.committed():
            with contextlib.suppress(ShardError):  # damaged after the run has read it for the last time
                whole.add(str(store.read(batch).id))
        rows = pd.read_parquet(self.folder / "images", columns=["batch", "row"])
        summary = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return {
            "accepted": len(self.accepted),
            "lost": len(self.accepted - whole),
            "duplicated": rows[rows.duplicated()]["batch"].nunique(),
            "longest_stall_s": self.longest_stall_s,
            "seconds": time.monotonic() - self._began,
            "failures": self.failures,
            "student_accuracy": summary["student_accuracy"],
        }


def kill(run: Run, kind: str, with_signal: int = signal.SIGKILL) -> bool:
    """Signal one process of a kind; False where there is none."""
    for pid in of_kind(run, kind)[:1]:
        os.kill(pid, with_signal)
        return True
    return False


def of_kind(run: Run, kind: str) -> list[int]:
    """Return the processes of a run by the beginning of the name of their program."""
    found = descendants(run.process.pid).items()
    return [pid for pid, command in found if Path(command.split(" ")[0]).name.startswith(kind)]


def kill_driver(run: Run) -> bool:
    """Kill the driver with all its processes."""
    os.killpg(run.process.pid, signal.SIGKILL)
    return True


def terminate_driver(run: Run) -> bool:
    """End the driver as a scheduler does."""
    run.process.send_signal(signal.SIGTERM)
    return True


def exhaust_memory(run: Run) -> bool:
    """Leave a generator a few MiB more than it has; its next large tensor finds no memory."""
    for pid in of_kind(run, "ray::Generator")[:1]:
        pages = int((Path("/proc") / str(pid) / "statm").read_text(encoding="utf-8").split()[0])
        limit = pages * resource.getpagesize() + 2**20
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        return True
    return False


def damage_shard(run: Run) -> bool:
    """Flip a byte of a shard; whoever reads it next finds it damaged."""
    shards = sorted((run.folder / "images").glob("r*.parquet"))
    if not shards:
        return False
    content = bytearray(shards[len(shards) // 2].read_bytes())
    content[len(content) // 2] ^= 0xFF
    shards[len(shards) // 2].write_bytes(content)
    return True


def fill_disk(run: Run) -> bool:
    """Leave no byte free for a while."""
    filler = run.folder.parent / "filler"
    if not filler.parent.is_mount():
        return False
    run.undo()
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    run.lasts(filler.unlink)
    return True


def set_faults(run: Run, **faults: int) -> bool:
    """Make storage slow or failing for a while."""
    run.undo()
    run.faults.set(**faults)
    run.lasts(run.faults.set)
    return True


def set_clock(run: Run) -> bool:
    """Set Python's clock, and back again after a while."""
    return set_faults(run, clock_s=random.choice([-7200, -60, 60, 7200]))


FAULTS: dict[str, Callable[[Run], bool]] = {
    "generator killed": lambda run: kill(run, "ray::Generator"),
    "generator stopped": lambda run: kill(run, "ray::Generator", signal.SIGSTOP),
    "generator out of memory": exhaust_memory,
    "buffer killed": lambda run: kill(run, "ray::Buffer"),
    "student killed": lambda run: kill(run, "ray::SingleWorker.learn"),
    "evaluator killed": lambda run: kill(run, "ray::Evaluator"),
    "shard damaged": damage_shard,
    "storage slow": lambda run: set_faults(run, sync_ms=1500),
    "storage failing": lambda run: set_faults(run, failing=3),
    "clock set": set_clock,
    "disk full": fill_disk,
    "driver killed": kill_driver,
    "driver terminated": terminate_driver,
    "Ray's control service killed": lambda run: kill(run, "gcs_server"),
}
ENDING = ("shard damaged", "disk full", "driver killed", "driver terminated", "Ray's control service killed")
"""faults that may end a run"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and write after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--undisturbed", type=int, default=3, help="runs without faults, before the time begins")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    random.seed(given.seed)
    faults: Counter[str] = Counter()
    undisturbed, outcomes = list[dict[str, Any]](), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as work:
        for seed in range(given.seed, given.seed + given.undisturbed):
            undisturbed.append(_run(Path(work), seed, 0.0, faults))
        began = time.monotonic()
        end = began + 60 * given.minutes
        while time.monotonic() < end:
            outcomes.append(_run(Path(work), given.seed + len(outcomes), end, faults))
            write_json(given.json, _result(faults, undisturbed, outcomes, (time.monotonic() - began) / 60))
    result = json.loads(given.json.read_text(encoding="utf-8"))
    print(json.dumps({name: value for name, value in result.items() if name not in ("runs", "undisturbed")}, indent=1))


def _result(
    faults: Counter[str], undisturbed: list[dict[str, Any]], outcomes: list[dict[str, Any]], minutes: float
) -> dict[str, Any]:
    table = pd.DataFrame(outcomes)
    return {
        "minutes": minutes,
        "all_faults": faults.total(),
        "faults": dict(sorted(faults.items())),
        **{name: int(table[name].sum()) for name in ("accepted", "lost", "duplicated")},
        "failures": [said for outcome in outcomes for said in outcome["failures"]],
        "longest_stall_s": float(table["longest_stall_s"].max()),
        **_accuracy("student_accuracy", outcomes),
        **_accuracy("undisturbed_accuracy", undisturbed),
        "runs": outcomes,
        "undisturbed": undisturbed,
        "machine": machine_text(),
    }


def _accuracy(name: str, runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return mean and standard deviation over runs; empty where there are none."""
    values = pd.Series([run["student_accuracy"] for run in runs], dtype=float)
    return {name: float(values.mean()), f"{name}_std": float(values.std())} if len(values) > 1 else {}


def _run(work: Path, seed: int, end: float, faults: Counter[str]) -> dict[str, Any]:
    """Carry out a run with faults until the time is over, and return its outcome."""
    with _disk(work) as disk:
        run = Run(disk, work / "teachers", Faults(work, disk), seed)
        _torment(run, end, faults)
        outcome = run.outcome()
    print(json.dumps(outcome), flush=True)
    return outcome


@contextlib.contextmanager
def _disk(work: Path) -> Iterator[Path]:
    """Yield a folder for a run, of a file system of its own if one can be mounted."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        options = ["-o", f"size={DISK_MIB}m", "tmpfs", folder]
        mounted = subprocess.run(["mount", "-t", "tmpfs", *options], capture_output=True).returncode == 0
        try:
            yield Path(folder)
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", folder], check=True)


def _torment(run: Run, end: float, faults: Counter[str]) -> None:
    """Let a run go on to its end, with a fault every now and then until the time is over."""
    due = time.monotonic() + EVERY_S
    while True:
        if run.process.poll() is not None:
            if not run.process.returncode:
                break
            run.resume()
        run.look()
        now = time.monotonic()
        if due <= now < end:
            name, met = random.choice(list(FAULTS)), False
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # of a process that has just ended
                met = FAULTS[name](run)
            if met:
                faults[name] += 1
                run.may_end |= name in ENDING
                print(f"{end - now:4.0f} s left: {name}", flush=True)
            due = now + EVERY_S
        time.sleep(0.25)
    run.undo()
    run.look()


if __name__ == "__main__":
    main()
