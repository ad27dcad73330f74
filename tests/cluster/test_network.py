"""Hosts that lose the network and come back, as seen by those that stay and by those that are cut off.

Three hosts on this machine, made of Linux namespaces (`hosts.py`). That takes Linux, root, `ip` (Debian's iproute2),
`unshare` and `nsenter` (util-linux) and bash; without root, `unshare --map-root-user make test-cluster` does where the
kernel grants users namespaces. Where hosts cannot be had, the tests are skipped and say why.

What Ray 2.60 does: a node of which nothing is heard is given up (by default after a minute); its own processes go on
meanwhile, without knowing. When the network is back, its raylet learns that it counts as dead and ends, and
`ray start --block` with it, status 1: whoever runs the host starts it again, as a new node.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import command_of, descendants
from raydream.runtime.checkpoints import steps_saved
from raydream.store.folders import folder_at
from tests.calls import ROOT, TINY, images_of, wait_until
from tests.chaos.faults import assert_nothing_left, noted
from tests.cluster.conftest import BIN, ENV
from tests.cluster.hosts import Network, NoHostsError, network

pytestmark = pytest.mark.cluster

HEAD, OTHERS = "head", ("one", "two")
MAKING, TRAINING = "ray::Generator.make", "ray::SingleWorker.learn"
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""with which Ray gives a node up after some 10 s"""


class Nodes:
    """A Ray cluster of one node on each of three hosts; each but the head has one CPU.

    Attributes:
        network: of the hosts.
        processes: `ray start --block` by host, which lasts as long as its node.
    """

    def __init__(self, network: Network, logs: Path, head_cpus: int) -> None:
        self.network, self._logs = network, logs
        self.address = f"{network.addresses[HEAD]}:6379"
        self.processes: dict[str, subprocess.Popen[str]] = {}
        subprocess.run([BIN / "ray", "get-auth-token", "--generate"], check=True, capture_output=True)
        self._start(HEAD, "--head", f"--num-cpus={head_cpus}", "--include-dashboard=false", "--disable-usage-stats")
        for host in OTHERS:
            self.add(host)

    def add(self, host: str) -> None:
        """Start a host's node as its operator does, for the first time or again."""
        self._start(host, f"--address={self.address}", "--num-cpus=1")

    def on(self, host: str, kind: str) -> list[int]:
        """Processes on a host whose command line begins so."""
        return [pid for pid, name in descendants(self.processes[host].pid).items() if name.startswith(kind)]

    def distill(self, run_dir: Path, library: Path, *options: str) -> subprocess.Popen[str]:
        """Start a long run, whose driver is on the head."""
        command = [sys.executable, "jobs/distill.py", "--config", TINY, "--training.library", library, "--run-dir"]
        sizes = ["--generators.cpus", "0.6", "--student.cpus", "0.4", "--synthesis.iterations", "200"]
        pipe = subprocess.PIPE
        environment = {**ENV, "RAY_ADDRESS": self.address}
        return self.network.run(HEAD, *command, run_dir, *sizes, *options, env=environment, stdout=pipe, stderr=pipe)

    def _start(self, host: str, *options: str) -> None:
        size = ["--object-store-memory=200000000", f"--node-ip-address={self.network.addresses[host]}"]
        command, environment = [BIN / "ray", "start", "--block", *size, *options], {**ENV, **IMPATIENT}
        log = self._logs / f"{host}.txt"
        with log.open("w") as output:
            process = self.network.run(host, *command, env=environment, stdout=output, stderr=output)
        wait_until(lambda: "Ray runtime started" in log.read_text(), process)
        self.processes[host] = process


@pytest.fixture
def hosts() -> Iterator[Network]:
    try:
        with network(HEAD, *OTHERS) as hosts:
            yield hosts
    except NoHostsError as error:
        pytest.skip(f"no hosts can be made on this machine: {error}")


def contents(run_dir: Path) -> dict[str, bytes]:
    """Of all shards by name."""
    return {path.name: path.read_bytes() for path in (run_dir / "images").glob("r*.parquet")}


def assert_whole(run_dir: Path, process: subprocess.Popen[str], rounds: int) -> None:
    """The run ends well, with every batch of its schedule and all of its student's steps."""
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    scheduled = [(0, index) for index in range(3)] + [(each + 1, index) for each in range(rounds) for index in range(2)]
    assert sorted(images_of(run_dir)) == [f"r{number:04}-b{index:04}" for number, index in scheduled]
    assert json.loads((run_dir / "summary.json").read_text())["distillation_steps"] == rounds * 100 + 60
    assert_nothing_left(run_dir, {})


LEAVES_A_HOST = """
import os, signal
from tests.cluster.hosts import network

with network("one") as hosts:
    hosts.run("one", "sleep", "1000")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.usefixtures("hosts")
def test_whatever_runs_on_a_host_ends_with_whoever_made_it() -> None:
    # Its output is read to the end, which comes when `sleep` is gone, too.
    done = subprocess.run([sys.executable, "-c", LEAVES_A_HOST], cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_host_is_cut_off_with_its_generator_and_comes_back(hosts: Network, tmp_path: Path, library: Path) -> None:
    nodes, run_dir, rounds = Nodes(hosts, tmp_path, head_cpus=1), tmp_path / "run", 30
    run = nodes.distill(run_dir, library, "--generators.count", "3", "--rounds.count", str(rounds))
    wait_until((run_dir / "images" / "r0001-b0000.parquet").exists, run)
    host = next(other for other in OTHERS if not nodes.on(other, TRAINING))
    at_work: list[int] = []
    wait_until(lambda: at_work.extend(nodes.on(host, MAKING)) or bool(at_work), run)
    (generator,) = at_work
    os.kill(generator, signal.SIGSTOP)  # so that it is late, and commits when its batch has been made elsewhere
    nodes.network.cut(host)
    wait_until(lambda: "failed at batch" in noted(run_dir), run)
    lost = re.search(r"failed at batch (\S+) and is replaced", noted(run_dir))
    wait_until((run_dir / "images" / f"{lost[1]}.parquet").exists, run)
    wait_until(lambda: "there is room for 2 of 3 generators now" in noted(run_dir), run)
    accepted = contents(run_dir)

    os.kill(generator, signal.SIGCONT)
    wait_until(lambda: not nodes.on(host, MAKING), run)
    assert command_of(generator), "the host's node went before its generator was done: nothing was shown"
    nodes.network.join(host)
    nodes.processes[host].wait(timeout=120)  # Ray ends a node that comes back after it was given up
    nodes.add(host)
    wait_until(lambda: "there is room for 3 of 3 generators now" in noted(run_dir), run)
    wait_until(lambda: bool(nodes.on(host, MAKING)), run)
    assert_whole(run_dir, run, rounds)
    kept = contents(run_dir)
    assert f"{lost[1]}.parquet" in accepted
    assert [name for name in accepted if kept[name] != accepted[name]] == []
    later = [made for batch, made in images_of(run_dir).items() if f"{batch}.parquet" not in accepted]
    assert {made.provenance.generator for made in later} == {0, 1, 2}


def test_a_host_is_cut_off_with_the_student(hosts: Network, tmp_path: Path, library: Path) -> None:
    nodes, run_dir, rounds = Nodes(hosts, tmp_path, head_cpus=0), tmp_path / "run", 12
    run = nodes.distill(run_dir, library, "--generators.count", "2", "--rounds.count", str(rounds))
    wait_until(lambda: steps_saved(folder_at(run_dir / "checkpoints")) > 0, run)
    (host,) = [other for other in OTHERS if nodes.on(other, TRAINING)]
    nodes.network.cut(host)
    assert_whole(run_dir, run, rounds)
    assert "the student was restarted" in noted(run_dir)
