import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hypothesis
import pytest

import raydream.runtime  # noqa: F401  (Ray reads its settings when it is imported, which test modules do first)
from tests import ledger
from tests.calls import STARTED, call, lockstep_options, run
from tests.stores import new_bucket, reach, s3_server

Job = Callable[..., subprocess.CompletedProcess[str]]

SUITES = ("long", "chaos", "cluster", "fuzz", "browser")
"""what the fast tier leaves out; each has a `make test-...`"""
LATE = "no time left: CI_DEADLINE is over"


@pytest.fixture(autouse=True)
def signals_interrupt() -> None:
    """A shell that starts the tests in its background has Ctrl-C ignored, and nohup SIGHUP, which jobs would inherit.

    Ray Train leaves behind a handler of Ctrl-C that waits for a cluster that is gone.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws is the same each time, whichever tests ran before it. Torch is not imported for this alone."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


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
def s3() -> Iterator[str]:
    """The URL of a server that speaks S3, started once."""
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket of that server."""
    reach(s3, monkeypatch)
    return new_bucket()


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two CPUs, which is started once and joined by whatever needs Ray."""
    from ray.cluster_utils import Cluster  # here, as tests that start no Ray need not wait for it

    token = [Path(sys.executable).with_name("ray"), "get-auth-token", "--generate"]
    subprocess.run(token, check=True, capture_output=True)
    started = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, "num_cpus": 2})
    yield started.address
    started.shutdown()


@pytest.fixture(scope="session")
def job(cluster: str) -> Job:
    """Runs a job to its end in this process, on the session's cluster: `job("distill", *options)`."""
    return partial(call, address=cluster)


@pytest.fixture(scope="module")
def joined(cluster: str) -> Iterator[None]:
    """This process is a driver on the session's cluster, for a module that runs no jobs."""
    import ray

    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(["platform", "."])}}
    ray.init(address=cluster, log_to_driver=False, logging_level="WARNING", runtime_env=environment)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def own_ray() -> None:
    """Asked for by what starts a private Ray, so that its tests are marked as those are that join the cluster."""


@pytest.fixture(scope="session")
def lockstep_run(tmp_path_factory: pytest.TempPathFactory, library: Path, own_ray: None) -> Path:
    """A finished tiny run in lockstep, seed 7, two generators, as a user starts it: on a private Ray."""
    run_dir = tmp_path_factory.mktemp("lockstep") / "run"
    done = run("distill", *lockstep_options(library), "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir


def pytest_configure(config: pytest.Config) -> None:
    """Settings of all tests, before their modules are imported.

    No test fails for being slow on a busy machine. And nothing here is large enough for two threads, of which two
    pytest workers would have four on two cores.
    """
    hypothesis.settings.register_profile(
        "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("untimed")
    if hasattr(config, "workerinput") or not config.option.numprocesses:
        import torch  # here, as a process that only hands out tests needs none

        torch.set_num_threads(1)
    ledger.register(config)


@pytest.hookimpl(tryfirst=True)  # before options of pytest choose by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray, or joins one that another test has started."""
    for item in items:
        if {"cluster", "own_ray"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("ray")


@pytest.hookimpl(tryfirst=True)  # before fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of the other suites that would begin after `CI_DEADLINE`, seconds since the epoch."""
    deadline = float(os.environ.get("CI_DEADLINE", "inf"))
    if time.time() > deadline and any(item.get_closest_marker(name) for name in SUITES):
        pytest.skip(LATE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Note what the deadline left out, for the table at CI's end."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # the process that hands out the tests has all of their reports
    late = [each.nodeid for each in terminalreporter.stats.get("skipped", []) if LATE in str(each.longrepr)]
    if late and (note := os.environ.get("CI_LEFT_OUT")):
        suite = terminalreporter.config.option.markexpr
        files = Counter(name.partition("::")[0] for name in late)
        with Path(note).open("a") as file:
            file.writelines(f"{suite:10} {count:4}  {name}\n" for name, count in files.items())
