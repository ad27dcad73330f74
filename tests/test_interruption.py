import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from raydream import interruption


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_that_was_swallowed_is_raised_again_at_the_next_check() -> None:
    interruption.listen()
    interruption.check()
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    interruption.listen()  # another job in this process
    interruption.check()


def test_ctrl_c_is_raised_at_once() -> None:
    interruption.listen()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_job_in_the_background_goes_on_ignoring_it() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interruption.listen()
    os.kill(os.getpid(), signal.SIGINT)
    interruption.check()
