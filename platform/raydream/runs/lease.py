"""The lease: reserves a folder in a store, where there are no locks, to one process.

Its holder rewrites a file in the folder every few seconds. A process that finds the file watches it for a while: a
live holder changes it, and a killed one does not.
"""

import _thread
import contextlib
import threading
import time
import uuid
from collections.abc import Iterator

from raydream.errors import InputError
from raydream.store.folders import Folder

NAME = ".lease"
RENEW_S = 5.0
LAPSE_S = 20.0
"""seconds without a sign of its holder after which any process may take a lease"""


@contextlib.contextmanager
def leased(place: Folder) -> Iterator[None]:
    """Hold a folder's lease for a `with` block; it is interrupted, as by Ctrl-C, if another process takes it.

    That happens only to a process that was stopped, or cut off from the store, for longer than `LAPSE_S`.

    Raises:
        InputError: another process holds it.
        OSError: the store fails.
    """
    if is_alive(place):
        remedy = "wait for its end, or stop it"
        raise InputError("--resume", str(place), "a run that no other process is using", remedy)
    own, ended = uuid.uuid4().hex, threading.Event()
    place.write(NAME, f"{own} 0".encode())
    holder = threading.Thread(target=_renew, args=(place, own, ended), daemon=True)
    holder.start()
    try:
        yield
    finally:
        ended.set()
        holder.join()
        if _holder(place) == own:
            place.delete(NAME)


def is_alive(place: Folder) -> bool:
    """Return whether the lease has a holder that shows itself before the lease lapses."""
    found, until = _content(place), time.monotonic() + LAPSE_S
    while found and time.monotonic() < until:
        time.sleep(1.0)
        if _content(place) not in (found, ""):
            return True
    return False


def _renew(place: Folder, own: str, ended: threading.Event) -> None:
    times = 0
    while not ended.wait(RENEW_S):
        times += 1
        with contextlib.suppress(OSError):  # the next time may succeed
            if _holder(place) not in (own, ""):
                _thread.interrupt_main()
                return
            place.write(NAME, f"{own} {times}".encode())


def _content(place: Folder) -> str:
    try:
        return place.read(NAME).decode()
    except FileNotFoundError:
        return ""


def _holder(place: Folder) -> str:
    return _content(place).partition(" ")[0]
