"""Storage that fails now and then, storage that is full, and a clock that is set."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.faults import Faults
from raydream.teachers.checkpoints import save_network
from tests.calls import TINY, assert_same_images, images_of, run, start, wait_until
from tests.chaos.faults import noted
from tests.tiny import WIDTH, tiny_network

pytestmark = pytest.mark.chaos


def synthesize(checkpoint: Path, run_dir: Path, **options):
    """Thirty small batches of a digits network."""
    return start(
        "synthesize", "--teacher.arguments", f"{{width: {WIDTH}}}", "--teacher.checkpoint", checkpoint,
        "--data.name", "none", "--images", "480", "--synthesis.batch_size", "16", "--synthesis.iterations", "10",
        "--generators.cpus", "0.4", "--run-dir", run_dir, **options,
    )  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.safetensors"
    save_network(tiny_network(), path)
    return path


def test_a_full_disk_stops_the_run_clearly_and_it_goes_on_when_there_is_space(tmp_path: Path, checkpoint: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        process = synthesize(checkpoint, disk / "run")
        out, error = process.communicate(timeout=200)
        assert process.returncode == 1, out + error
        assert "no space is left for" in error and "--resume" in error and "Traceback" not in out + error
        kept = images_of(disk / "run")
        assert 0 < len(kept) < 30 and not list(disk.rglob("*.aside"))
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        done = run("synthesize", "--resume", disk / "run")
        assert done.returncode == 0, done.stdout + done.stderr
        whole = images_of(disk / "run")
        assert len(whole) == 30
        assert_same_images(kept, {batch: whole[batch] for batch in kept})
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """Of what is written to `tmp_path / "run"`."""
    try:
        made = Faults(tmp_path, tmp_path / "run")
    except OSError as error:
        pytest.skip(str(error))
    made.set(clock_s=7200)
    asked = [sys.executable, "-c", "import time; print(time.time())"]
    seen = subprocess.run(asked, env=made.environment, capture_output=True, text=True, check=True).stdout
    assert float(seen) - time.time() > 7000, "Python asks for the time in a way that the library does not see"
    made.set()
    return made


def test_writes_that_fail_now_and_then_cost_nothing_but_time(tmp_path: Path, library: Path, faults: Faults) -> None:
    run_dir = tmp_path / "run"
    faults.set(failing=3)
    process = start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir, env=faults.environment
    )
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert len(images_of(run_dir)) == 3 + 3 * 2
    assert not list(run_dir.rglob("*.aside"))


def test_a_clock_that_is_set_forth_and_back_is_no_silence(tmp_path: Path, library: Path, faults: Faults) -> None:
    run_dir = tmp_path / "run"
    process = start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir, env=faults.environment
    )
    for hours, shards in ((3, 1), (-3, 4)):
        wait_until(lambda: len(list(run_dir.glob("images/r*.parquet"))) >= shards, process)  # noqa: B023
        faults.set(clock_s=hours * 3600)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert "too long" not in noted(run_dir), noted(run_dir)
    rows = pd.read_parquet(run_dir / "metrics.parquet")
    assert (rows["duration_s"].dropna() >= 0).all() and (rows["duration_s"].dropna() < 1800).all()
