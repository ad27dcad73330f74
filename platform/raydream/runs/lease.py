"""The lease: reserves a folder in a store, where there are no locks, to one process.

A lease is a file, `.lease-<number>`, that its holder rewrites every few seconds: so a live holder shows itself, and a
killed one does not. A process takes a lease by writing the file of the next number first (`store/exclusive.py`), so of
several that do so at the same moment one gets it. The highest number counts.
"""

import _thread
import contextlib
import threading
import time
import uuid
from collections.abc import Iterator

from raydream.errors import InputError, RaydreamError
from raydream.store.folders import Folder

NAME = ".lease-"
"""prefix of a lease's file, before its number"""
RENEW_S = 5.0
LAPSE_S = 20.0
"""seconds without a sign of its holder after which any process may take a lease"""
LOOK_S = 1.0
"""seconds between two looks at a lease"""

LeaseState = tuple[int, str]
"""number of a folder's newest lease, and content of its file: holder, and how often it was renewed; (0, ""): none"""


@contextlib.contextmanager
def leased(place: Folder, refused: InputError) -> Iterator[threading.Event]:
    """Hold a folder's lease for a `with` block; it is interrupted, as by Ctrl-C, if another process takes the lease.

    That happens to a process that was stopped, or cut off from the store, for longer than `LAPSE_S`. In a store whose
    writes are not exclusive it also happens to one of two that took the lease at the same moment.

    Yields:
        an event that is set once another process has taken the lease; nothing may be written then.

    Raises:
        InputError: `refused`, as another process holds it.
        RaydreamError: another process has taken it.
        OSError: the store fails.
    """
    own, ended, taken = uuid.uuid4().hex, threading.Event(), threading.Event()
    number = _taken(place, own)
    if not number:
        raise refused
    holder = threading.Thread(target=_renew, args=(place, number, own, ended, taken), daemon=True)
    holder.start()
    try:
        yield taken
    except KeyboardInterrupt as error:
        if taken.is_set():
            raise RaydreamError(f"another process has taken over {place}, as this one was silent too long") from error
        raise
    finally:
        ended.set()
        holder.join()
        if _is_holder(own, _newest(place)):
            place.delete(f"{NAME}{number}")


def is_alive(place: Folder) -> bool:
    """Return whether the lease has a holder that shows itself before the lease lapses."""
    return _free_after(place) is None


def is_lease(name: str) -> bool:
    """Return whether a file is a lease."""
    return name.startswith(NAME) and name.removeprefix(NAME).isdecimal()


def _taken(place: Folder, own: str) -> int:
    """Take the lease, and return its number; 0 if another process holds it, or was faster."""
    lapsed = _free_after(place)
    if lapsed is None:
        return 0
    number = lapsed + 1
    place.write_first(f"{NAME}{number}", f"{own} 0".encode())
    # The file itself says who was first, even where the answer to a write that succeeded was lost.
    if not _is_holder(own, _newest(place)):
        return 0
    for other in _numbers(place):
        if other < number:
            place.delete(f"{NAME}{other}")
    return number


def _free_after(place: Folder) -> int | None:
    """Return the number of the newest lease, which has lapsed, or 0 if there is none; None if a process holds it."""
    first, until = _newest(place), time.monotonic() + LAPSE_S
    while first[0] and time.monotonic() < until:
        time.sleep(LOOK_S)
        now = _newest(place)
        if now != first:
            return None if now[0] else 0
    return first[0]


def _renew(place: Folder, number: int, own: str, ended: threading.Event, taken: threading.Event) -> None:
    times = 0
    while not ended.wait(RENEW_S):
        times += 1
        with contextlib.suppress(OSError):  # the next time may succeed
            if not _is_holder(own, _newest(place)):
                taken.set()
                _thread.interrupt_main()
                return
            place.write(f"{NAME}{number}", f"{own} {times}".encode())


def _newest(place: Folder) -> LeaseState:
    number = max(_numbers(place), default=0)
    try:
        return (number, place.read(f"{NAME}{number}").decode()) if number else (0, "")
    except FileNotFoundError:  # just deleted
        return 0, ""


def _numbers(place: Folder) -> list[int]:
    return [int(name.removeprefix(NAME)) for name in place.names() if is_lease(name)]


def _is_holder(own: str, seen: LeaseState) -> bool:
    return seen[1].partition(" ")[0] == own
