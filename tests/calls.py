"""Runs jobs: in this process where the job is what is tested, and as processes where these are.

`call` is quick: nothing is started but what a job starts in Ray. `start` and `run` are what a user does, for signals,
exit statuses, what is printed where, and a Ray of the job's own.
"""

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.numpy

from raydream.runtime import SETTINGS
from raydream.store.records import ImageBatch
from raydream.store.shards import ShardStore

ROOT = Path(__file__).parents[1]
TINY = Path(__file__).with_name("tiny.yaml")


STARTED: list[subprocess.Popen[str]] = []
"""processes of the test in progress, which `conftest.py` kills at its end if they are still alive"""


def program(job: str) -> list[str]:
    """What Python is given to run a job from the repository's root: its script, or the package where it has none."""
    script = f"tuning/{job}.py" if job in ("search", "ablate") else f"jobs/{job}.py"
    return [script] if (ROOT / script).exists() else ["-m", "raydream", job]


def call(
    job: str, *arguments: str | Path, address: str | None = None, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a job to its end in this process.

    Args:
        address: of the Ray cluster that it joins; None: it starts a private one, if it gets so far.
        folder: in which it runs.
    """
    words, out, error = [*program(job), *map(str, arguments)], io.StringIO(), io.StringIO()
    is_script = words[0] != "-m"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", words if is_script else words[1:])
        patch.setattr(sys, "path", [*sys.path])
        if address:
            patch.setenv("RAY_ADDRESS", address)
        with pytest.raises(SystemExit) as ended:
            if is_script:
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
            else:
                runpy.run_module("raydream", run_name="__main__")
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), out.getvalue(), error.getvalue())


def start(job: str, *arguments: str | Path, **options) -> subprocess.Popen[str]:
    """Start a job in a session of its own, so that signals to it reach no other process.

    Unless options say otherwise it is without the settings of Ray that this process has made, as a user's job is.
    """
    command = [sys.executable, *program(job), *map(str, arguments)]
    options.setdefault("env", {name: value for name, value in os.environ.items() if name not in SETTINGS})
    pipe = subprocess.PIPE
    STARTED.append(
        subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe, start_new_session=True, **options)
    )
    return STARTED[-1]


def run(job: str, *arguments: str | Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a job to its end."""
    process = start(job, *arguments)
    try:
        out, error = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        out, error = process.communicate()
        raise AssertionError(f"{job} took more than {timeout_s} s\n{out}\n{error}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for a condition while a process is alive; much longer than it takes, as machines can be busy."""
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def images_of(run_dir: Path) -> dict[str, ImageBatch]:
    """All committed image batches of a run by id."""
    store = ShardStore(run_dir / "images")
    return {str(batch): store.read(batch) for batch in store.committed()}


def assert_same_run(one: Path, other: Path) -> None:
    """Equal pixels, targets and logits by batch id, and equal student weights, to the bit."""
    assert_same_images(images_of(one), images_of(other))
    weights = [safetensors.numpy.load_file(run_dir / "student.safetensors") for run_dir in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert (value == weights[1][name]).all(), name


def assert_same_images(one: dict[str, ImageBatch], other: dict[str, ImageBatch]) -> None:
    """Equal pixels, targets and logits by batch id, to the bit."""
    assert one.keys() == other.keys()
    for batch, made in one.items():
        assert (made.images == other[batch].images).all(), batch
        assert (made.targets == other[batch].targets).all(), batch
        assert (made.teacher_logits == other[batch].teacher_logits).all(), batch
        assert made.provenance.seed == other[batch].provenance.seed
        assert made.provenance.student_step == other[batch].provenance.student_step


def lockstep_options(library: Path) -> list[str]:
    """The tiny run in lockstep, seed 7."""
    return ["--config", str(TINY), "--training.library", str(library), "--rounds.lockstep", "true", "--seed", "7"]
