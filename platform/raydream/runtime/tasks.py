"""Concurrent tasks that report their progress: starting, following and awaiting them."""

import time
from collections.abc import Iterator

import ray
from rich.console import Console

from raydream.errors import StallError
from raydream.reporting.progress import Counter
from raydream.runtime.failures import own_error
from raydream.runtime.messages import ReportQueue
from raydream.runtime.session import beside_the_driver

POLL_S = 0.2


class Tasks:
    """Tasks by name, as the driver sees them. Each returns why it failed, or None if it did not.

    Args:
        what: plural noun for the tasks.
        stall_timeout_s: seconds without any report after which they count as stuck.

    Attributes:
        reports: a queue of `TaskProgress`, from the tasks.
    """

    def __init__(self, what: str, stall_timeout_s: float) -> None:
        self._what, self._stall_timeout_s = what, stall_timeout_s
        self.reports = ReportQueue(name=f"reports of {what}", scheduling_strategy=beside_the_driver())
        self._shares: dict[str, float] = {}
        self._running: dict[ray.ObjectRef, str] = {}

    def add(self, name: str, share: float, task: ray.ObjectRef | None) -> None:
        """Add a task.

        Args:
            share: of it that is done, in [0, 1].
            task: reference to the task; None if it ended in an earlier session.
        """
        self._shares[name] = share
        if task is not None:
            self._running[task] = name

    def ended(self, console: Console) -> Iterator[tuple[str, str | None]]:
        """Yield each task as it ends: its name, and why it failed; meanwhile, show the progress of all.

        Raises:
            RaydreamError: a process failed for good, or no report arrived for too long.
        """
        heard_at = time.monotonic()
        with Counter(self._what, sum(self._shares.values()), len(self._shares), console) as counter:
            while self._running:
                try:
                    done = [
                        (self._running.pop(task), ray.get(task))
                        for task in ray.wait(list(self._running), timeout=POLL_S)[0]
                    ]
                    reports = self.reports.take()
                except ray.exceptions.RayError as error:
                    raise own_error(error, f"one of the {self._what} failed") from error
                for name, reason in done:
                    self._shares[name] = 1.0
                    yield name, reason
                for news in reports:
                    self._shares[news.name] = max(news.share, self._shares[news.name])
                counter.update(sum(self._shares.values()))
                if done or reports:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > self._stall_timeout_s:
                    left = ", ".join(self._running.values())
                    raise StallError(f"no news for {self._stall_timeout_s:g} s (stall_timeout_s) of {left}")
