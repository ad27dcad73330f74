"""Ctrl-C, also where it was swallowed.

Python raises KeyboardInterrupt wherever the main thread happens to be, and a library that is just then calling back
into Python may lose it: a run has been seen to go on as if nothing had been said. What is remembered here is not lost.
"""

import signal
import threading
from types import FrameType

_came = threading.Event()


def listen() -> None:
    """Remember Ctrl-C from now on, beside raising KeyboardInterrupt as ever; where it is ignored, it stays so."""
    _came.clear()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def check() -> None:
    """Raise KeyboardInterrupt if Ctrl-C has come; long loops call it once a turn."""
    if _came.is_set():
        raise KeyboardInterrupt


def _interrupt(signum: int, frame: FrameType | None) -> None:
    _came.set()
    raise KeyboardInterrupt
