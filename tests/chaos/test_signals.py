"""SIGTERM and SIGHUP: a run says how to resume it, and leaves no process behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.processes import command_of, descendants
from raydream.teachers.checkpoints import save_network
from tests.calls import start, wait_until
from tests.chaos.faults import assert_nothing_left, noted
from tests.tiny import WIDTH, tiny_network

pytestmark = pytest.mark.chaos


@pytest.fixture
def synthesize(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a job that needs no real data and ends after minutes; its run folder is `tmp_path / "run"`."""
    save_network(tiny_network(), tmp_path / "teacher.safetensors")
    options = [
        "--teacher.arguments", f"{{width: {WIDTH}}}", "--teacher.checkpoint", tmp_path / "teacher.safetensors",
        "--data.name", "none", "--images", "3200", "--synthesis.batch_size", "16", "--synthesis.iterations", "100",
        "--generators.cpus", "0.4", "--run-dir", tmp_path / "run",
    ]  # fmt: skip
    return lambda *more, **environment: start("synthesize", *options, *more, env={**os.environ, **environment})


def assert_interrupted(process: subprocess.Popen[str], status: int, run_dir: Path) -> None:
    out, error = process.communicate(timeout=60)
    assert process.returncode == status, out + error
    assert f"--resume {run_dir}" in error.splitlines()[-1] and "Traceback" not in out + error, out + error


def test_a_run_that_is_ended_while_ray_starts_leaves_nothing(
    synthesize: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process, seen = synthesize(), {}
    # A raylet that is killed leaves its agents behind: the signal comes as soon as it has one.
    wait_until(lambda: any("agent" in command.lower() for command in descendants(process.pid).values()), process)
    os.kill(process.pid, signal.SIGTERM)
    while process.poll() is None:
        seen |= descendants(process.pid)
    assert_interrupted(process, 143, tmp_path / "run")
    assert_nothing_left(tmp_path / "run", seen, patience_s=10.0)


def test_a_run_on_a_cluster_is_ended_and_the_cluster_stays(
    synthesize: Callable[..., subprocess.Popen[str]], tmp_path: Path, cluster: str
) -> None:
    before = descendants(os.getpid())
    process = synthesize(RAY_ADDRESS=cluster)
    wait_until(lambda: any((tmp_path / "run").glob("images/r*.parquet")), process)
    own = {
        pid: command
        for pid, command in descendants(os.getpid()).items()
        if pid not in before and command.startswith(("ray::Generator", "ray::ReportActor"))
    }
    assert len(own) == 3, "the generators and the reports"
    os.kill(process.pid, signal.SIGHUP)  # as a terminal that is closed
    assert_interrupted(process, 129, tmp_path / "run")
    assert_nothing_left(tmp_path / "run", own, patience_s=10.0)
    daemons = {pid: command for pid, command in before.items() if "raylet/raylet" in command or "gcs_server" in command}
    assert len(daemons) == 2 and all(command_of(pid) == command for pid, command in daemons.items())


def test_a_run_whose_driver_is_stopped_for_long_loses_nothing(
    synthesize: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """As by Ctrl-Z: its generators went on, and what they reported meanwhile is read before they are judged."""
    process = synthesize("--generators.patience_s", "30", "--images", "960")
    wait_until(lambda: any((tmp_path / "run").glob("images/r*.parquet")), process)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(33)
    os.kill(process.pid, signal.SIGCONT)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert "failed" not in noted(tmp_path / "run"), noted(tmp_path / "run")
