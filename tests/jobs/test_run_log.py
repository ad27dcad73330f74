"""What is recorded of a batch, without Ray and without any shard on the disk."""

import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raydream.config import DistillConfig
from raydream.jobs.job import JobRun
from raydream.jobs.run_log import RunLog
from raydream.reporting.progress import Display, DisplayState
from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder
from raydream.runtime.messages import Receipt
from raydream.schedule import Schedule
from tests.tiny import local_run, some_batch


@pytest.mark.parametrize("is_shown", [True, False])
def test_the_images_of_a_batch_come_from_the_driver_and_not_from_its_shard(tmp_path: Path, is_shown: bool) -> None:
    config, batch = DistillConfig(), some_batch("r0001-b0000", shape=(3, 8, 8))
    folder = local_run(tmp_path)
    recorder, console = Recorder(folder.metrics, folder.tensorboard, time.time()), Console(force_terminal=False)
    run = JobRun(config, folder, recorder, Journal(folder.journal, print), console)
    log = RunLog(run, Schedule.of(config), 0, Display(DisplayState(1, 1, 1, 1), console))
    receipt = Receipt(batch.provenance, time.time(), 1.0, {"tv": [(0, 0.5), (10, 0.25)]})
    log.batch_made(batch.id, receipt, batch.images if is_shown else None)
    recorder.close()
    events = EventAccumulator(str(folder.tensorboard))
    events.Reload()
    assert events.Tags()["images"] == (["images"] if is_shown else [])
    table = recorder.table()
    assert table[table["name"] == "loss/tv"]["value"].tolist() == [0.5, 0.25]
    assert table[table["name"] == "target_share"]["value"].tolist() == [np.float64(0.6)]
    assert set(table["batch"]) == {"r0001-b0000"}
