"""A run folder with damaged files: mended, or refused in one sentence; never a stack trace from within."""

import contextlib
import io
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydream.cli import Command, run_job
from raydream.config import DistillConfig
from raydream.jobs.checks.distill import check_run
from raydream.jobs.distill import distill
from raydream.jobs.teacher import keep_teacher, with_kept_teacher
from raydream.runs import run_folder
from raydream.runs.journal import Journal, read_journal
from raydream.runs.recorder import Recorder
from raydream.runs.summaries import DistillSummary
from raydream.runtime.checkpoints import quarantine_damaged_checkpoints
from raydream.store.shards import ShardStore
from raydream.students.snapshots import read_snapshot
from tests.fuzz.mutations import MUTATIONS, mutated

pytestmark = pytest.mark.fuzz

REMADE = ("images.png", "report.html", "student.safetensors")
"""what is written anew without being read"""


@pytest.fixture(scope="module")
def done(lockstep_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done, with a journal."""
    folder = tmp_path_factory.mktemp("folders") / "done"
    shutil.copytree(lockstep_run, folder)
    Journal(folder / "journal.jsonl", print).note("something was mended")
    return folder


@pytest.fixture(scope="module")
def half_done(done: Path) -> Path:
    """The same, as if killed before its end."""
    folder = done.with_name("half_done")
    shutil.copytree(done, folder)
    (folder / "summary.json").unlink()
    return folder


def look(command: Command[DistillConfig]) -> None:
    """What a resumed job does before it starts Ray, and what its driver reads of the folder then."""
    config = command.config
    checked = check_run(replace(config, teacher=with_kept_teacher(config.teacher, command.resumed)))
    folder = command.folder("distill")
    with run_folder.held(folder):
        assert run_folder.read_summary(folder, DistillSummary) is None
        keep_teacher(
            checked.teacher, (config.teacher, config.training, config.data), folder, print, torch.device("cpu")
        )
        Recorder(folder.metrics, folder.tensorboard, time.time()).close()
        read_journal(folder.journal)
        ShardStore(folder.images).quarantine_damaged()
        quarantine_damaged_checkpoints(folder.checkpoints)
        for snapshot in (folder.path / "snapshots").glob("0*"):
            read_snapshot(folder.snapshots, int(snapshot.stem))


def check(job, folder: Path, place: float, mutations: list[tuple] | None) -> None:
    """Damage one file of a copy, or delete it, and look at what the job says."""
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.name not in REMADE)
    victim = files[int(place * len(files))]
    if mutations is None:
        victim.unlink()
    else:
        victim.write_bytes(mutated(victim.read_bytes(), mutations))
    said = io.StringIO()
    shown = contextlib.redirect_stdout(io.StringIO())
    with contextlib.redirect_stderr(said), shown, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fuzzed", "--resume", str(copy)])
        status = run_job(DistillConfig, "fuzzed", job)
    told = [line for line in said.getvalue().splitlines() if line.startswith(("error: ", "failed: "))]
    assert status in (0, 1, 2) and len(told) == (status != 0), (victim, said.getvalue())


PLACES = st.floats(0, 1, exclude_max=True)
DAMAGE = st.one_of(st.none(), st.lists(MUTATIONS, min_size=1, max_size=3))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(place=PLACES, mutations=DAMAGE)
def test_a_run_to_be_gone_on_with(half_done: Path, place: float, mutations: list[tuple] | None) -> None:
    check(look, half_done, place, mutations)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(place=PLACES, mutations=DAMAGE)
def test_a_run_that_is_done(done: Path, place: float, mutations: list[tuple] | None) -> None:
    if (done / "summary.json").exists():
        check(distill, done, place, mutations)
