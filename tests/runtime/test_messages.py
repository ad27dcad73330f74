"""The queue of reports: small messages, and networks that outlive the process that reported them."""

import os
import signal

import numpy as np
import pytest
import ray

from raydream.runtime.messages import NetworkReport, Notice, ReportQueue
from raydream.store.records import Snapshot

pytestmark = pytest.mark.usefixtures("joined")

WEIGHTS = 2_000_000


class Student:
    def report(self, reports: ReportQueue, steps: int) -> int:
        for step in range(steps):
            reports.put(NetworkReport("distill", step, Snapshot(step, {"weights": np.full(WEIGHTS, step, np.float32)})))
        return os.getpid()


def test_a_network_outlives_its_reporter_and_the_report_itself_is_small() -> None:
    reports, student = ReportQueue(), ray.remote(num_cpus=0.1)(Student).remote()
    pid = ray.get(student.report.remote(reports, 2), timeout=60)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(student.report.remote(reports, 1), timeout=60)
    taken = reports.take()
    assert len(ray.cloudpickle.dumps(taken)) < 4000
    assert [report.snapshot.step for report in taken] == [0, 1]
    for report in taken:
        weights = ray.get(report.snapshot.ref, timeout=20).state["weights"]
        assert weights.shape == (WEIGHTS,) and (weights == report.snapshot.step).all()


def test_reports_come_once_and_in_order() -> None:
    reports, texts = ReportQueue(), [str(number) for number in range(20)]
    for text in texts:
        reports.send(Notice(text))
    reports.put(Notice("last"))
    assert len(reports) == 21
    assert [report.text for report in reports.take()] == [*texts, "last"]
    assert len(reports) == 0 and reports.take() == []
