"""Storage that fails now and then, and storage that is full."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from raydream.teachers.checkpoints import save_network
from tests.calls import TINY, assert_same_images, images_of, run, start
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


def test_writes_that_fail_now_and_then_cost_nothing_but_time(tmp_path: Path, library: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    shim, run_dir = tmp_path / "flaky.so", tmp_path / "run"
    source = Path(__file__).with_name("flaky.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    process = start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir,
        env={**os.environ, "LD_PRELOAD": str(shim), "FLAKY_FOLDER": str(run_dir)},
    )  # fmt: skip
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert len(images_of(run_dir)) == 3 + 3 * 2
    assert not list(run_dir.rglob("*.aside"))
