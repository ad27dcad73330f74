"""Who can reach what: docs/security.md, as sockets."""

import ipaddress
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.calls import TINY, start, wait_until
from tests.cluster.conftest import Head

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are read from /proc"),
]

LISTENS = "0A"
CALLS = [
    "NodeInfoGcsService/GetAllNodeInfo",
    "NodeManagerService/GetNodeStats",
    "ObjectManagerService/Pull",
    "CoreWorkerService/NumPendingTasks",
    "ReporterService/GetTraceback",
    "RayletDriver/ClusterInfo",
]
"""one of each service that a process of Ray offers"""


def process_tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
        except OSError:
            continue  # it has just ended
    tree = [root]
    for process in tree:
        tree += children.get(process, [])
    return tree


def listening(processes: list[int]) -> Iterator[tuple[str, str, int]]:
    """Name of the process, address and port, of every TCP socket on which one of these processes listens."""
    addresses = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTENS:
                address, _, port = local.partition(":")
                addresses[f"socket:[{rest[5]}]"] = (address_of(address), int(port, 16))
    for process in processes:
        folder = Path("/proc", str(process))
        try:
            name = (folder / "comm").read_text().strip()
            links = [str(file.readlink()) for file in (folder / "fd").iterdir()]
        except OSError:
            continue  # it, or one of its files, has just gone
        yield from ((name, *addresses[link]) for link in links if link in addresses)


def address_of(words: str) -> str:
    """The kernel writes an address as words of 32 bits, each in the machine's order (taken as little-endian)."""
    packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)


def test_a_run_of_ones_own_listens_on_loopback_alone(tmp_path: Path, library: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(
        "distill", "--config", TINY, "--training.library", library, "--run-dir", run_dir, "--student.workers", "2"
    )
    seen: set[tuple[str, str, int]] = set()

    def student_has_begun() -> bool:
        seen.update(listening(process_tree(process.pid)))
        return (run_dir / "images" / "r0001-b0000.parquet").exists()

    wait_until(student_has_begun, process)
    assert {"gcs_server", "raylet", "ray::DashboardA", "ray::RayTrainWo"} <= {name for name, _, _ in seen}
    assert not [(name, at) for name, at, _ in seen if not ipaddress.ip_address(at).is_loopback]


def test_without_the_token_no_port_of_a_cluster_takes_an_order(head: Head) -> None:
    head.ray("job", "submit", "--address", head.address, "--no-wait", "--", "sleep", "60")
    deadline, doors = time.monotonic() + 60, set()
    while not {"ray::JobSupervi", "gcs_server", "raylet", "ray::DashboardA"} <= {name for name, _, _ in doors}:
        assert time.monotonic() < deadline, doors
        doors.update(listening(process_tree(head.pid)))
    for name, address, port in doors:
        target = f"{'127.0.0.1' if ipaddress.ip_address(address).is_unspecified else address}:{port}"
        answers = {call(target, method) for method in CALLS}
        if grpc.StatusCode.UNAVAILABLE in answers:  # it speaks HTTP: a page of metrics takes nothing at all
            assert post(f"http://{target}/api/jobs/") in (401, 405), (name, target)
        else:
            assert answers <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}, (name, target)
            assert grpc.StatusCode.UNAUTHENTICATED in answers, (name, target)
    dashboard = int(head.address.rpartition(":")[2])
    assert {address for _, address, port in doors if port == dashboard} == {"127.0.0.1"}


def call(target: str, method: str) -> grpc.StatusCode:
    with grpc.insecure_channel(target) as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=10)
        except grpc.RpcError as refusal:
            return refusal.code()
    return grpc.StatusCode.OK


def post(url: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code
