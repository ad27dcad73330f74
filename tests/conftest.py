import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import raydream.runtime  # noqa: F401  (Ray reads its settings when it is imported, which test modules do first)
from tests.jobs import STARTED, lockstep_options, run


@pytest.fixture(autouse=True)
def ctrl_c_interrupts() -> None:
    """A shell that starts the tests in its background has Ctrl-C ignored, which jobs would inherit.

    Ray Train leaves behind a handler that waits for a cluster that is gone.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_job_outlives_its_test() -> Iterator[None]:
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of a test session keep their one teacher."""
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="session")
def lockstep_run(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """A finished tiny run in lockstep, seed 7, two generators."""
    run_dir = tmp_path_factory.mktemp("lockstep") / "run"
    done = run("distill", *lockstep_options(library), "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir


@pytest.hookimpl(tryfirst=True)  # before fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of the long suites that would begin after `CI_DEADLINE` (seconds since the epoch), if there is one."""
    deadline = float(os.environ.get("CI_DEADLINE", "inf"))
    if any(item.get_closest_marker(name) for name in ("long", "chaos", "cluster")) and time.time() > deadline:
        pytest.skip("no time left: CI_DEADLINE is over")
