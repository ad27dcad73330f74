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
from raydream.runtime.session import ray_session


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
