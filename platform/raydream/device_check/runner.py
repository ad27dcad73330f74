"""Runs steps one after another, each in a separate process with a deadline, and writes all results after each."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import raydream
from raydream.device_check.steps import CheckStep, why_skipped
from raydream.device_check.summary import outcome
from raydream.store.atomic import write_json

Result = dict[str, Any]
"""a step's result: ok (None where it was skipped), error, seconds, figures"""

GRACE_S = 5.0
"""seconds for a step past its deadline to end by itself, with Ray's processes, before it is killed"""
TAIL = 2000
"""number of characters kept of a failed step's output"""


def run_steps(
    steps: Sequence[CheckStep], device: str, out: Path, limit_s: float, say: Callable[[str], object]
) -> dict[str, Result]:
    """Run all steps; returns their results by name.

    Args:
        steps: the steps; the first one's figures decide which others are skipped, see `why_skipped`.
        device: as in `raydream.compute.use_device`; passed on to each step.
        out: JSON file to write after each step.
        limit_s: seconds for all steps together; steps without remaining time count as failed.
        say: prints a line.

    Raises:
        OSError: `out` cannot be written.
    """
    results: dict[str, Result] = {}
    ends = time.monotonic() + limit_s
    with tempfile.TemporaryDirectory(prefix="raydream-check-", ignore_cleanup_errors=True) as folder:
        environment = _environment(Path(folder))
        for number, step in enumerate(steps, 1):
            left_s = min(step.deadline_s, ends - time.monotonic())
            reason = why_skipped(step, results[steps[0].name]["figures"] if results else {})
            say(f"[{number}/{len(steps)}] {step.name}: {step.does}")
            if reason is not None:
                result: Result = {"ok": None, "error": None, "seconds": 0.0, "figures": {"skipped": reason}}
            elif left_s <= 0:
                error = f"no time was left of {limit_s:g} s: raise --minutes, or choose steps by --only"
                result = {"ok": False, "error": error, "seconds": 0.0, "figures": {}}
            else:
                result = run_step(step, device, left_s, Path(folder), environment)
            results[step.name] = result
            write_json(out, results)
            say(f"    {outcome(result)}")
    return results


def run_step(step: CheckStep, device: str, deadline_s: float, folder: Path, environment: dict[str, str]) -> Result:
    """Run one step in a separate process; all processes that it started have ended on return.

    Args:
        deadline_s: seconds until the process is ended.
        folder: folder for the step's answer and output.
    """
    answer, output = folder / "answer.json", folder / "output.txt"
    answer.unlink(missing_ok=True)
    options = json.dumps({"device": device, **step.options})
    command = [sys.executable, "-m", __package__, step.target, options, str(answer)]
    began, late = time.monotonic(), False
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
        )
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
    seconds = round(time.monotonic() - began, 2)
    result: Result = {"ok": False, "error": None, "figures": {}}
    if answer.exists():
        result = json.loads(answer.read_text(encoding="utf-8"))
    elif not late:
        result["error"] = f"the process ended with status {process.returncode} and without an answer"
    if late:
        result |= {"ok": False, "error": f"the step did not end within {deadline_s:.0f} s and was killed"}
    if not result["ok"]:
        result["error"] += _tail(output)
    return {"ok": result["ok"], "error": result["error"], "seconds": seconds, "figures": result["figures"]}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and kill the rest of its session's process group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # on which a step with Ray stops Ray, whose processes are in other groups
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of dead processes
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(output: Path) -> str:
    text = output.read_text(errors="replace", encoding="utf-8").strip()
    return f"\n{text[-TAIL:]}" if text else ""


def _environment(folder: Path) -> dict[str, str]:
    """Return the steps' environment: this source tree, a compile cache that starts empty, and no cluster."""
    source = str(Path(raydream.__file__).parents[1])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    caches = {"TORCHINDUCTOR_CACHE_DIR": folder / "inductor", "TRITON_CACHE_DIR": folder / "triton"}
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), **{name: str(path) for name, path in caches.items()}}
