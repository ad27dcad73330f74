"""The signals that end a run in the same way as Ctrl-C."""

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""sent by systemd, Slurm, Kubernetes and `timeout`, and by a terminal that is closed"""
ONCE_S = 1.0
"""seconds in which further signals are ignored: `timeout` signals its child and its group, a closed terminal's shell
and the kernel both signal a job"""


class Interruption:
    """Raises KeyboardInterrupt in the main thread on SIGTERM and SIGHUP, for the length of a `with` block.

    A run ends on these signals as it does on Ctrl-C. A signal that the process ignores, as SIGHUP under nohup,
    stays ignored. Enter it in the main thread, as Python lets no other one handle signals.

    Attributes:
        signal: the first of these signals that arrived; None if none did.
    """

    def __init__(self) -> None:
        # Ray, and other C code, answers a KeyboardInterrupt with another one, so the exception cannot carry this.
        self.signal: signal.Signals | None = None
        self._at = -math.inf
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        now = monotonic()
        if now - self._at < ONCE_S:
            return
        self._at = now
        self.signal = self.signal or signal.Signals(number)
        raise KeyboardInterrupt


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Delay the signals that the process handles, Ctrl-C included, to the end of a `with` block, or of a function.

    For code that must not be left halfway: the start of processes, or of others' code that would keep a lock.
    """
    if threading.current_thread() is not threading.main_thread():  # which gets no signals
        yield
        return
    before: dict[signal.Signals, Any] = {}
    held: list[int] = []
    holds = True

    def hold(number: int, frame: FrameType | None) -> None:
        # A signal between two lines of the `finally` below may find this handler still installed.
        held.append(number) if holds else before[signal.Signals(number)](number, frame)

    try:
        for number in (signal.SIGINT, *ENDING):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, hold)
        yield
    finally:
        holds = False
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
