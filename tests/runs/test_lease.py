"""A run in a store is reserved to one process by a lease."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow import fs

from raydream.errors import InputError, RaydreamError
from raydream.runs import lease
from raydream.runs.lease import leased
from raydream.store.folders import Folder, RemoteFolder, folder_at

REFUSED = InputError("--resume", "x", "a run that no other process is using", "wait")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"RENEW_S": 0.3, "LAPSE_S": 1.0, "LOOK_S": 0.1}.items():
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture
def place(bucket: str) -> Folder:
    return folder_at(f"{bucket}/run")


def test_a_held_folder_is_refused_until_its_holder_is_gone(place: Folder) -> None:
    with leased(place, REFUSED), pytest.raises(InputError, match="no other process is using"), leased(place, REFUSED):
        pass
    assert place.names() == []
    place.write(f"{lease.NAME}3", b"killed 3")
    assert not lease.is_alive(place)
    with leased(place, REFUSED):
        assert place.names() == [f"{lease.NAME}4"]
        assert lease.is_alive(place)
    assert place.names() == []


def test_a_lease_that_is_returned_is_free_at_once(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LAPSE_S", 60.0)
    monkeypatch.setattr(lease, "RENEW_S", 60.0)
    with ThreadPoolExecutor(1) as other:
        with leased(place, REFUSED):
            found = other.submit(lease.is_alive, place)
            time.sleep(0.3)
        assert not found.result(timeout=20)


def takers(place: Folder, count: int = 2) -> list[bool]:
    """Whether each of some processes that take a lease at the same moment has got it, while all of them run."""
    together, answered = (threading.Barrier(count, timeout=60) for _ in range(2))

    def take(_: int) -> bool:
        together.wait()
        try:
            with leased(place, REFUSED):
                answered.wait()
                return True
        except InputError:
            answered.wait()
            return False

    with ThreadPoolExecutor(count) as threads:
        return [*threads.map(take, range(count))]


@pytest.mark.parametrize("there", ["", "lapsed"])
def test_of_two_that_take_a_lease_at_the_same_moment_one_gets_it(
    place: Folder, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 60.0)  # a lease that was lost would interrupt this test
    monkeypatch.setattr(lease, "LAPSE_S", 0.2)
    for turn in range(5):
        of_turn = place / str(turn)
        if there:
            of_turn.write(f"{lease.NAME}1", b"killed 3")
        assert sorted(takers(of_turn)) == [False, True]


def interrupted(place: Folder) -> None:
    with pytest.raises(KeyboardInterrupt):
        for _ in range(300):  # an interruption ends no sleep that has begun
            time.sleep(0.1)


def test_a_process_that_loses_its_lease_is_interrupted_and_leaves_the_other(place: Folder) -> None:
    with leased(place, REFUSED):
        place.write(f"{lease.NAME}2", b"another 0")
        interrupted(place)
    assert place.read(f"{lease.NAME}2") == b"another 0"


def test_a_process_whose_lease_another_had_and_returned_is_interrupted(place: Folder) -> None:
    with leased(place, REFUSED):
        for name in place.names():
            place.delete(name)
        interrupted(place)
    assert place.names() == []


def test_where_two_may_take_a_lease_the_later_one_keeps_it(tmp_path: Path) -> None:
    place = RemoteFolder("x", fs.LocalFileSystem(), str(tmp_path))
    with leased(place, REFUSED):
        place.write(f"{lease.NAME}1", b"another 0")
        interrupted(place)
    assert place.read(f"{lease.NAME}1") == b"another 0"


def test_a_process_that_lost_its_lease_says_so(place: Folder) -> None:
    with pytest.raises(RaydreamError, match="another process has taken over"), leased(place, REFUSED):
        place.write(f"{lease.NAME}2", b"another 0")
        for _ in range(300):
            time.sleep(0.1)


def test_an_interruption_of_its_holder_is_one(place: Folder) -> None:
    with pytest.raises(KeyboardInterrupt), leased(place, REFUSED):
        raise KeyboardInterrupt
    assert place.names() == []
