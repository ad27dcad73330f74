import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.calls import ROOT

BIN = Path(sys.executable).parent
ENV = {**os.environ, "RAY_AUTH_MODE": "token", "PATH": f"{BIN}:{os.environ['PATH']}"}
FAKE_HEAD = {"RAY_NODE_TYPE_NAME": "ray.head.default", "RAY_CLOUD_INSTANCE_ID": "f" * 51 + "00000"}
"""how Ray's fake provider calls the head"""


@dataclass
class Head:
    """A cluster begun with `ray start --head`, as a user reaches it."""

    address: str
    gcs: str
    metrics_port: int
    pid: int
    session: Path
    env: dict[str, str] = field(default_factory=lambda: ENV)

    def ray(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command of Ray's own command line, from the repository's root."""
        command = [BIN / "ray", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.env, text=True, capture_output=True, timeout=timeout_s)

    def submit(self, *job: str | Path, wait: bool = True) -> subprocess.CompletedProcess[str]:
        """Submit a job the way README.md tells."""
        options = ["--working-dir", ".", "--runtime-env", "runtime_env.yaml", *([] if wait else ["--no-wait"])]
        return self.ray("job", "submit", "--address", self.address, *options, "--", "python", *map(str, job))

    def submit_command(self, folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Submit a command of raydream, which is installed on all nodes, from a folder without the repository."""
        options = ["--working-dir", str(folder)]
        return self.ray("job", "submit", "--address", self.address, *options, "--", "raydream", *map(str, words))

    def workers(self, resources: list[str]) -> Counter[str]:
        """How many live nodes offer each of these custom resources."""
        listed = self.ray("list", "nodes", "--address", self.address, "--filter", "state=ALIVE", "--format", "json")
        assert listed.returncode == 0, listed.stdout + listed.stderr
        if listed.stdout.startswith("No resource in the cluster"):  # no JSON, until the head itself is registered
            return Counter()
        nodes = [node["resources_total"] for node in json.loads(listed.stdout)]
        return Counter(name for node in nodes for name in resources if name in node)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def started(gcs: int, *options: str, **env: str) -> Iterator[Head]:
    """A head with token authentication on free ports, and its end."""
    dashboard, agent, metrics, client, autoscaler = free_ports(5)
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], check=True, capture_output=True)
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    ports += [f"--metrics-export-port={metrics}", f"--ray-client-server-port={client}"]
    temporary = tempfile.mkdtemp(prefix="ray-")  # short, as there are sockets in it
    kept_in = f"--temp-dir={temporary}"
    command = [BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", kept_in, *ports, *options]
    env = {**ENV, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", "AUTOSCALER_METRIC_PORT": str(autoscaler), **env}
    process = subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.DEVNULL)
    gcs_address = f"{ray.util.get_node_ip_address()}:{gcs}"
    head = Head(f"http://127.0.0.1:{dashboard}", gcs_address, metrics, process.pid, Path(temporary, "session_latest"))
    try:
        deadline = time.monotonic() + 120
        while head.ray("job", "list", "--address", head.address).returncode:
            assert process.poll() is None and time.monotonic() < deadline, "the cluster did not come up"
            time.sleep(1)
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A cluster of one node with two CPUs."""
    with started(*free_ports(1), "--num-cpus=2") as head:
        yield head


def fake(config: dict[str, Any], gcs: str) -> dict[str, Any]:
    """The shape of a cluster.yaml for Ray's fake provider: its node types as processes of this machine, with one CPU in
    place of what the cloud's machines have, and a short idle timeout."""
    stages = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    commands = [f"{stage}_commands" for stage in stages]
    types = {
        name: {**kind, "node_config": {}, "resources": {"CPU": 1, "object_store_memory": 2**28, **kind["resources"]}}
        for name, kind in config["available_node_types"].items()
    }
    types[FAKE_HEAD["RAY_NODE_TYPE_NAME"]] = types.pop(config["head_node_type"])
    return {
        **{key: config[key] for key in ("cluster_name", "max_workers", "upscaling_speed")},
        **{key: {} for key in ("auth", "file_mounts")},
        **{key: [] for key in (*commands, "cluster_synced_files")},
        "available_node_types": types,
        "head_node_type": FAKE_HEAD["RAY_NODE_TYPE_NAME"],
        "idle_timeout_minutes": 5 / 60,
        "provider": {
            "type": "external",  # and not fake_multinode, for which Ray's autoscaler v2 lacks a file in the wheel
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": gcs,
            "head_node_id": FAKE_HEAD["RAY_CLOUD_INSTANCE_ID"],
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
    }


@pytest.fixture(scope="module")
def autoscaling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A cluster in cluster.yaml's shape, with the autoscaler (v2) that `ray up` and KubeRay start."""
    (gcs,) = free_ports(1)
    file = tmp_path_factory.mktemp("autoscaling") / "cluster.json"
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    config = fake(cluster, f"{ray.util.get_node_ip_address()}:{gcs}")
    validate_config(prepare_config(config))  # a head whose autoscaler refuses it comes up, and goes down a little later
    file.write_text(json.dumps(config))
    settings = {"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    cpus = cluster["available_node_types"][cluster["head_node_type"]]["resources"]["CPU"]
    options = [f"--num-cpus={cpus}", f"--autoscaling-config={file}"]
    with started(gcs, *options, **settings, **FAKE_HEAD) as head:
        yield head
