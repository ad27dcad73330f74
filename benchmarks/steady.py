"""Does the memory of a run's driver and buffer stay flat over ten thousand batches?

    python benchmarks/steady.py --json OUT [--batches 10000]

A whole run of `raydream distill`, of a network so small that a batch takes a few milliseconds: the resident memory of
the two processes is noted after each hundredth of its batches. `buffer.memory_mb` bounds the images in memory to a
thousand batches, as a set beyond memory has; growth is measured after the first fifth, when that bound is reached.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import descendants

from raydream.runtime.session import machine_text
from raydream.store.atomic import write_json

ROUNDS = 50
SETTINGS = {
    "teacher.arguments": "{width: 8}",
    "student.arguments": "{width: 8}",
    "training.epochs": 4,
    "data.name": "digits",
    "synthesis.method": "deep_inversion",
    "synthesis.batch_size": 4,
    "synthesis.iterations": 1,
    "synthesis.precision": "fp32",
    "synthesis.jitter": 0,
    "student.precision": "fp32",
    "student.batch_size": 64,
    "student.cpus": 0.4,
    "generators.cpus": 0.4,
    "buffer.samples_per_insert": 10,
    "buffer.memory_mb": 0.25,
    "rounds.count": ROUNDS - 1,
    "rounds.final_steps": 10,
    "reuse": "",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=10_000, help="at least 500")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        noted = _watched(Path(folder) / "run", given.batches)
    after_fifth = [each for each in noted if each["batches"] >= given.batches / 5]
    first, last = after_fifth[0], after_fifth[-1]
    found = {
        "batches": given.batches,
        "seconds": time.monotonic() - began,
        "driver_bytes_per_batch": _slope(first, last, "driver_mib"),
        "buffer_bytes_per_batch": _slope(first, last, "buffer_mib"),
        "memory": noted,
        "machine": machine_text(),
    }
    write_json(given.json, found)
    print(json.dumps({name: value for name, value in found.items() if name != "memory"}, indent=1))


def _watched(run: Path, batches: int) -> list[dict[str, float]]:
    """Carry out a run, and return the memory of both processes, in MiB, by the number of batches."""
    words = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    per_round = str(batches // ROUNDS)
    words += ["--rounds.initial_batches", per_round, "--rounds.batches", per_round, "--run-dir", str(run)]
    command = [sys.executable, "-m", "raydream", "distill", *words]
    with (run.parent / "output").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        noted, due = list[dict[str, float]](), 0.0
        while process.poll() is None:
            time.sleep(1.0)
            made = sum(1 for _ in (run / "images").glob("r*.parquet"))
            buffers = [pid for pid, command in descendants(process.pid).items() if command.startswith("ray::Buffer")]
            if made >= due and buffers and (buffer := _mib(buffers[0])) and (driver := _mib(process.pid)):
                noted.append({"batches": made, "driver_mib": driver, "buffer_mib": buffer})
                due = made + batches / 100
        if process.returncode:
            output.seek(0)
            raise SystemExit(output.read())
    return noted


def _mib(pid: int) -> float:
    """Return a process's resident memory; 0 where it has ended."""
    try:
        return (
            int((Path("/proc") / str(pid) / "statm").read_text(encoding="utf-8").split()[1])
            * resource.getpagesize()
            / 2**20
        )
    except OSError:
        return 0.0


def _slope(first: dict[str, Any], last: dict[str, Any], of: str) -> float:
    return float((last[of] - first[of]) * 2**20 / (last["batches"] - first["batches"]))


if __name__ == "__main__":
    main()
