import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.jobs import ROOT

BIN = Path(sys.executable).parent
ENV = {**os.environ, "RAY_AUTH_MODE": "token", "PATH": f"{BIN}:{os.environ['PATH']}"}


@dataclass
class Head:
    """A cluster of one node, begun with `ray start --head`, as a user reaches it."""

    address: str
    metrics_port: int
    pid: int
    env: dict[str, str] = field(default_factory=lambda: ENV)

    def ray(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command of Ray's own command line, from the repository's root."""
        command = [BIN / "ray", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.env, text=True, capture_output=True, timeout=timeout_s)

    def submit(self, *job: str | Path, wait: bool = True) -> subprocess.CompletedProcess[str]:
        """Submit a job the way README.md tells."""
        options = ["--working-dir", ".", "--runtime-env", "runtime_env.yaml", *([] if wait else ["--no-wait"])]
        return self.ray("job", "submit", "--address", self.address, *options, "--", "python", *map(str, job))


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    gcs, dashboard, agent, metrics = free_ports(4)
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], check=True, capture_output=True)
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    ports += [f"--metrics-export-port={metrics}"]
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", *ports]
    env = {**ENV, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    process = subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.DEVNULL)
    head = Head(f"http://127.0.0.1:{dashboard}", metrics, process.pid)
    try:
        deadline = time.monotonic() + 120
        while head.ray("job", "list", "--address", head.address).returncode:
            assert process.poll() is None and time.monotonic() < deadline, "the cluster did not come up"
            time.sleep(1)
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
