"""Generators that hang, and generators that fail again and again: the run goes on."""

import os
import signal
from pathlib import Path

import pytest

from benchmarks.processes import descendants
from raydream.teachers.checkpoints import save_network
from tests.chaos.faults import noted
from tests.chaos.faulty import Faulty
from tests.jobs import TINY, images_of, start, wait_until
from tests.tiny import WIDTH, tiny_network

pytestmark = pytest.mark.chaos


def test_a_generator_that_hangs_is_replaced(tmp_path: Path, library: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir,
        "--generators.patience_s", "12", "--synthesis.iterations", "400",
    )  # fmt: skip
    wait_until((run_dir / "images" / "r0000-b0000.parquet").exists, process)
    victims = [pid for pid, command in descendants(process.pid).items() if command.startswith("ray::Generator")]
    os.kill(victims[0], signal.SIGSTOP)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert len(images_of(run_dir)) == 3 + 3 * 2
    assert "is replaced: nothing was heard of it for too long" in noted(run_dir), out
    assert "was mended" in (run_dir / "report.html").read_text()
    assert not Path(f"/proc/{victims[0]}").exists()


def test_a_generator_that_fails_again_and_again_is_taken_out(tmp_path: Path) -> None:
    run_dir, checkpoint = tmp_path / "run", tmp_path / "teacher.safetensors"
    teacher = Faulty(WIDTH)
    teacher.network.load_state_dict(tiny_network().state_dict())
    save_network(teacher, checkpoint)
    process = start(
        "synthesize", "--teacher.network", "tests.chaos.faulty:network", "--teacher.checkpoint", checkpoint,
        "--data.name", "none", "--images", "160", "--synthesis.batch_size", "8", "--synthesis.iterations", "300",
        "--generators.cpus", "0.4", "--run-dir", run_dir,
    )  # fmt: skip
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert len(images_of(run_dir)) == 20
    assert {made.provenance.generator for made in images_of(run_dir).values()} == {0}
    assert noted(run_dir).count("generator 1 failed at batch") == 2
    assert "generator 1 failed again and again and is taken out: " in noted(run_dir)
    assert "the device of this machine is broken" in noted(run_dir)
