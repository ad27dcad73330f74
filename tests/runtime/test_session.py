"""A session leaves the process's handlers of signals in place, and tells what goes wrong in it in one sentence."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import ray

from raydream.errors import RaydreamError, ShardError
from raydream.interruption import ENDING, ONCE_S, Interruption
from raydream.runtime.session import ray_session, signals_held


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    """As in a job, whatever Ray has installed in this process for other tests."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    with Interruption() as entered:
        yield entered
    for number, handler in before.items():
        signal.signal(number, handler)


@ray.remote(num_cpus=0)
def fails(error: Exception) -> None:
    raise error


@ray.remote(num_cpus=0)
def sleeps() -> None:
    time.sleep(60)


def wait_for_a_signal() -> None:
    """A process gets a signal while its main thread waits for Ray, as a driver does most of the time."""
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    ray.get(sleeps.remote(), timeout=30)


def test_rays_own_handlers_are_not_installed(
    interruption: Interruption, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's abort the process, or exit without a word, and after its end the system's would be in place."""
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    with pytest.raises(KeyboardInterrupt), ray_session(lambda nodes: None, [], "signals"):
        wait_for_a_signal()
    assert interruption.signal is signal.SIGTERM and not ray.is_initialized()
    time.sleep(ONCE_S + 0.1)  # so that the next signal is another one
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def test_errors_of_remote_processes_leave_a_session_as_one_sentence(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    with pytest.raises(ShardError, match=r"^torn$"), ray_session(lambda nodes: None, [], "errors"):
        ray.get(fails.remote(ShardError("torn")))
    with pytest.raises(RaydreamError) as lost, ray_session(lambda nodes: None, [], "errors"):
        ray.get(fails.remote(OSError("the device is gone")))
    assert str(lost.value) == "a process that the run cannot do without was lost: OSError: the device is gone"


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING], ids=lambda number: number.name)
def test_a_signal_waits_until_ray_has_started(number: signal.Signals, interruption: Interruption) -> None:
    before, reached = signal.getsignal(number), []
    with pytest.raises(KeyboardInterrupt), signals_held():
        signal.raise_signal(number)
        reached.append("started")
    assert reached and signal.getsignal(number) is before
    assert interruption.signal is (None if number == signal.SIGINT else number)


def test_a_signal_that_nothing_handles_is_not_held() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_held():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_is_held_beside_the_main_thread() -> None:
    entered = []

    def other() -> None:
        with signals_held():
            entered.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert entered
