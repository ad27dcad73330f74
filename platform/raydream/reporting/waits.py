"""Waits: what the processes of a run wait for, and since when."""

import time
from collections.abc import Callable, Mapping

LONG_S = 10.0
"""seconds after which a wait is shown"""


class LongWaits:
    """Follows the waits of a run, and reports each that lasts for `LONG_S` seconds.

    Args:
        say: called once with a sentence about each long wait.
        clock: gives seconds, of which only differences count.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._since: dict[str, float] = {}
        self._said: set[str] = set()

    def update(self, waits: Mapping[str, str]) -> str:
        """Take in the present waits, and return a text of the long ones; empty if there is none.

        Args:
            waits: what each process waits for, by the process; a process that is missing waits for nothing.
        """
        now = self._clock()
        self._since = {process: self._since.get(process, now) for process in waits}
        self._said &= self._since.keys()
        shown = []
        for process, what in waits.items():
            if now - self._since[process] < LONG_S:
                continue
            shown.append(f"{process}: waiting {now - self._since[process]:.0f} s for {what}")
            if process not in self._said:
                self._said.add(process)
                began = time.time() - (now - self._since[process])
                moment = time.strftime("%H:%M:%S", time.localtime(began))
                self._say(f"{process}: waiting since {moment} for {what}")
        return "; ".join(shown)

    @property
    def longest_s(self) -> float:
        """Return the seconds of the longest present wait; 0 if there is none."""
        now = self._clock()
        return max((now - since for since in self._since.values()), default=0.0)
