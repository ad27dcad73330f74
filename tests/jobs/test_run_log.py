"""What is recorded of a batch, without Ray and without any shard on the disk."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raydream.config import DistillConfig
from raydream.jobs.job import JobRun
from raydream.jobs.run_log import CURVED_ROUNDS, RunLog
from raydream.reporting.progress import Display, DisplayState
from raydream.runs.recording import recording
from raydream.runs.run_folder import RunFolder
from raydream.runtime.messages import Receipt
from raydream.schedule import Schedule
from tests.tiny import local_run, some_batch


@pytest.mark.parametrize("is_first", [True, False])
def test_the_images_of_a_batch_come_from_the_driver_and_not_from_its_shard(tmp_path: Path, is_first: bool) -> None:
    batch = some_batch("r0001-b0000", shape=(3, 8, 8))
    folder = local_run(tmp_path)
    with run_log(folder) as log:
        receipt = Receipt(batch.provenance, time.time(), 1.0, {"tv": [(0, 0.5), (10, 0.25)]})
        log.batch_made(batch.id, receipt, batch if is_first else None)
    events = events_in(folder.events)
    assert events.Tags()["images"] == (["synthetic_images/classes 0-9"] if is_first else [])
    table = pd.read_parquet(folder.metrics)
    assert table[table["name"] == "loss/tv"]["value"].tolist() == [0.5, 0.25]
    assert table[table["name"] == "target_share"]["value"].tolist() == [np.float64(0.6)]
    assert set(table["batch"].dropna()) == {"r0001-b0000"}


def test_batches_are_shown_against_their_number_and_inversions_as_one_curve_a_round(tmp_path: Path) -> None:
    folder = local_run(tmp_path)
    with run_log(folder, committed=3) as log:
        for name in ("r0001-b0001", "r0001-b0000", "r0002-b0000"):  # in the order in which they happen to be made
            batch = some_batch(name, shape=(3, 8, 8))
            receipt = Receipt(batch.provenance, time.time(), 1.0, {"tv": [(0, 0.5), (10, 0.25)]})
            log.batch_made(batch.id, receipt, batch if batch.id.index == 0 else None)
    events = events_in(folder.events)
    shares = [(each.step, each.value) for each in events.Scalars("batches/target_share")]
    assert shares == [(4, pytest.approx(0.6)), (5, pytest.approx(0.6)), (6, pytest.approx(0.6))]
    assert [each.value for each in events.Scalars("batches/feature_distance")] == [7.0, 7.0, 7.0]
    assert [each.step for each in events.Scalars("teacher_layers/3.bn1")] == [5, 6]
    for curve in ("round-0001", "round-0002"):
        assert [(each.step, each.value) for each in events.Scalars(f"synthesis/tv/{curve}")] == [(0, 0.5), (10, 0.25)]
        assert [each.step for each in events.Scalars(f"synthesis/learning_rate/{curve}")] == [0, 10]


def test_of_many_rounds_a_few_are_shown_as_curves(tmp_path: Path) -> None:
    folder = local_run(tmp_path)
    with run_log(folder, rounds=100) as log:
        for number in range(101):
            batch = some_batch(f"r{number:04d}-b0000", shape=(1, 8, 8))
            log.batch_made(batch.id, Receipt(batch.provenance, time.time(), 1.0, {"tv": [(0, 0.5)]}), batch)
    curves = [tag for tag in events_in(folder.events).Tags()["scalars"] if tag.startswith("synthesis/tv/")]
    assert len(curves) == CURVED_ROUNDS and {"synthesis/tv/round-0000", "synthesis/tv/round-0100"} <= {*curves}


@contextlib.contextmanager
def run_log(folder: RunFolder, committed: int = 0, rounds: int = 4) -> Iterator[RunLog]:
    """A log of a run in this folder, whose records are closed at the end."""
    config = DistillConfig(rounds={"count": rounds})
    console = Console(force_terminal=False)
    with recording(folder, time.time(), print) as (recorder, journal):
        run = JobRun(config, folder, recorder, journal, console)
        yield RunLog(run, Schedule.of(config), committed, Display(DisplayState(1, 1, 1, 1), console))


def events_in(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events
