"""The ledger: CPU-seconds of each test, those of all processes that it starts included.

On only where `.ci/measured.py` runs the tests, in a control group whose account is read here. A test's share is what
the group has used since the test before it ended, so a session fixture counts for the test that first asks for it.
"""

import json
import os
import time
from pathlib import Path

import pytest

DEAREST = 10


class Ledger:
    """Notes each test's seconds, and shows the dearest at the end.

    Args:
        group: the control group in which the tests run.
        path: of a file that gets a line of JSON for each test; None: none.
    """

    def __init__(self, group: Path, path: Path | None) -> None:
        self._group, self._path = group, path
        self._before, self._began = used_s(group), time.monotonic()
        self._tests: list[tuple[float, float, str]] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self.pytest_runtest_logfinish("collection")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        now, moment = used_s(self._group), time.monotonic()
        self._tests.append((now - self._before, moment - self._began, nodeid))
        self._before, self._began = now, moment
        if self._path:
            cpu_s, wall_s, test = self._tests[-1]
            with self._path.open("a") as file:
                file.write(json.dumps({"test": test, "cpu_s": cpu_s, "wall_s": wall_s}) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("dearest tests: CPU-seconds, seconds")
        for cpu_s, wall_s, test in sorted(self._tests, reverse=True)[:DEAREST]:
            terminalreporter.line(f"{cpu_s:8.1f} {wall_s:8.1f}  {test}")


def used_s(group: Path) -> float:
    """CPU-seconds of all that has run in a control group."""
    if (group / "cpuacct.usage").exists():
        return int((group / "cpuacct.usage").read_text()) / 1e9
    return int((group / "cpu.stat").read_text().split()[1]) / 1e6


def register(config: pytest.Config) -> None:
    """Keep a ledger where there is an account, and tests run one after another in one process."""
    group = os.environ.get("LEDGER_GROUP")
    if group and not hasattr(config, "workerinput") and not getattr(config.option, "numprocesses", None):
        path = os.environ.get("LEDGER_TESTS")
        config.pluginmanager.register(Ledger(Path(group), Path(path) if path else None))
