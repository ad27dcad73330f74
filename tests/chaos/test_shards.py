"""Shards that are damaged: quarantined, made again, and told of."""

import os
import signal
from pathlib import Path

import pytest

from raydream.runs.journal import read_journal
from tests.calls import assert_same_run, lockstep_options, start, wait_until
from tests.chaos.faults import damage, kill, noted
from tests.conftest import Job

pytestmark = pytest.mark.chaos


def test_a_shard_damaged_during_a_run_is_made_again_to_the_bit(
    lockstep_run: Path, tmp_path: Path, library: Path
) -> None:
    run_dir = tmp_path / "run"
    process = start("distill", *lockstep_options(library), "--run-dir", run_dir)
    wait_until((run_dir / "images" / "r0002-b0000.parquet").exists, process)
    damage(run_dir / "images" / "r0001-b0001.parquet")
    # As long as the objects are in memory nobody reads a shard: whoever holds references to them has to go.
    kill(process.pid, "ray::Buffer")
    kill(process.pid, "ray::SingleWorker.learn")
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, out + error
    assert_same_run(lockstep_run, run_dir)
    assert any("r0001-b0001" in line and "is made again" in line for line in noted(run_dir).splitlines())
    assert len(list((run_dir / "images").glob("_damaged-*"))) == 1


def test_shards_damaged_while_nobody_was_at_work_are_mended_on_resuming(
    lockstep_run: Path, tmp_path: Path, library: Path, job: Job
) -> None:
    run_dir = tmp_path / "run"
    process = start("distill", *lockstep_options(library), "--run-dir", run_dir)
    wait_until((run_dir / "images" / "r0003-b0000.parquet").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    damage(run_dir / "images" / "r0000-b0002.parquet")
    (run_dir / "images" / "r0002-b0001.parquet").write_bytes(b"")
    done = job("distill", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(lockstep_run, run_dir)
    assert len(read_journal(run_dir / "journal.jsonl")) >= 2


def test_what_does_not_fit_into_memory_is_read_from_its_shards(
    lockstep_run: Path, tmp_path: Path, library: Path, job: Job
) -> None:
    run_dir, one_batch_mb = tmp_path / "run", 20 * 64 / 2**20
    done = job("distill", *lockstep_options(library), "--buffer.memory_mb", f"{one_batch_mb:.7f}", "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(lockstep_run, run_dir)
