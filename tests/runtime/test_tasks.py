"""Many tasks at once: all are waited for, shown, and missed where nothing is heard of them."""

import io
import os
import signal
import time
from functools import partial

import pytest
import ray
from rich.console import Console

from raydream.errors import RaydreamError, StallError
from raydream.runtime.messages import REPORT_S, ReportQueue, TaskProgress, Throttled
from raydream.runtime.tasks import Tasks

pytestmark = pytest.mark.usefixtures("joined")


@ray.remote(num_cpus=0.1, max_retries=0)
def work(reports: ReportQueue, name: str, seconds: float, reason: str | None, *after: str | None) -> str | None:
    tell, began = Throttled(reports, partial(TaskProgress, name)), time.monotonic()
    while (past := time.monotonic() - began) < seconds:
        tell(past / seconds)
        time.sleep(0.05)
    return reason


@ray.remote(num_cpus=0.1, max_retries=0)
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_comes_to_its_end_once_with_what_it_returned() -> None:
    shown = io.StringIO()
    tasks = Tasks("tasks", 300.0)
    tasks.add("earlier", 1.0, None)
    quick = work.remote(tasks.reports, "quick", 0.1, None)
    bad = work.remote(tasks.reports, "bad", 0.1, "it had no room")
    tasks.add("quick", 0.0, quick)
    tasks.add("bad", 0.5, bad)
    tasks.add("slow", 0.0, work.remote(tasks.reports, "slow", 4 * REPORT_S, None, quick, bad))  # begins when they ended
    ended = dict(tasks.ended(Console(file=shown)))
    assert ended == {"quick": None, "bad": "it had no room", "slow": None} and list(ended)[-1] == "slow"
    assert "of 4 tasks, left: " in shown.getvalue()


def test_those_who_speak_are_waited_for_and_those_who_do_not_are_named() -> None:
    tasks = Tasks("talkers", 5 * REPORT_S)
    ray.get(work.remote(tasks.reports, "talks", 0.0, None))  # so that its process is there
    tasks.add("talks", 0.0, work.remote(tasks.reports, "talks", 7 * REPORT_S, None))
    assert list(tasks.ended(Console(file=io.StringIO()))) == [("talks", None)]
    tasks.add("hangs", 0.0, work.options(num_cpus=9).remote(tasks.reports, "hangs", 1.0, None))
    with pytest.raises(StallError, match=r"no news for 5 s \(stall_timeout_s\) of hangs"):
        list(tasks.ended(Console(file=io.StringIO())))


def test_a_process_that_is_lost_for_good_is_said_in_a_sentence() -> None:
    tasks = Tasks("lost ones", 300.0)
    tasks.add("dies", 0.0, dies.remote())
    with pytest.raises(RaydreamError, match="one of the lost ones failed: "):
        list(tasks.ended(Console(file=io.StringIO())))
