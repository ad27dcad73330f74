"""What the driver keeps of the reports of a process that changes a network."""

import contextlib
import time
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from rich.console import Console

from raydream.errors import StallError
from raydream.jobs.followed import FollowedTask, record_network
from raydream.jobs.job import JobRun
from raydream.runs.journal import read_journal
from raydream.runs.metrics_table import read_metrics
from raydream.runs.recording import recording
from raydream.runtime.messages import NetworkReport, StoredSnapshot
from raydream.store.records import Snapshot
from tests.tiny import local_run


def test_figures_means_and_notes_are_kept_at_the_step_of_the_report(tmp_path):
    folder = local_run(tmp_path)
    learned = (np.array([1.0, 2.0]), np.array([0.5, 1.0]))
    reports = [
        NetworkReport("remove", 0, Snapshot(0, {}), figures={"pruning/filters": 30}, note="the checkpoint is damaged"),
        NetworkReport("distill", 0, Snapshot(2, {}), "", {"pruning/filters": 30}, *learned),
    ]
    with recording(folder, time.time(), print) as (recorder, journal):
        for report in reports:
            record_network(JobRun(None, folder, recorder, journal, Console()), report)
    kept = read_metrics(folder.metrics)
    kept = kept[kept["name"].str.contains("/")]
    assert list(zip(kept["name"], kept["step"], kept["value"], strict=True)) == [
        ("pruning/filters", 0, 30.0),
        ("pruning/filters", 2, 30.0),
        ("student/loss", 2, 1.5),
        ("student/agreement", 2, 0.75),
    ]
    assert [entry.text for entry in read_journal(folder.journal)] == ["the checkpoint is damaged"]


class _Slow:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def measure(self, report: NetworkReport[StoredSnapshot]) -> tuple[int, dict[str, float]]:
        time.sleep(self._seconds)
        return report.snapshot.step, {"test": 0.5}


@pytest.mark.ray
@pytest.mark.parametrize("ends", [True, False])
def test_measurements_of_what_is_trained_are_no_stall_and_silence_before_is_one(ends, tmp_path, cluster):
    """However long they take: a resumed run would have to wait for them again."""
    ray.init(address=cluster, namespace="followed", log_to_driver=False)
    folder = local_run(tmp_path)
    evaluator = ray.remote(num_cpus=0)(_Slow).remote(3.0 if ends else 600.0)
    try:
        with recording(folder, time.time(), print) as (recorder, journal):
            run = JobRun(SimpleNamespace(stall_timeout_s=1.0), folder, recorder, journal, Console(quiet=True))
            followed = FollowedTask(
                run, 0, 2, lambda report: None, evaluator.measure.remote, lambda report: "", gpus=0.0
            )
            followed.reports.put(NetworkReport("distill", 0, Snapshot(2, {})))
            with contextlib.nullcontext() if ends else pytest.raises(StallError, match="no news of the student"):
                followed.until_end(lambda: ends, "the student")
            assert ("accuracy/test" in recorder.table()["name"].tolist()) == ends
    finally:
        ray.shutdown()
