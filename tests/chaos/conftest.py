import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster


@pytest.fixture
def start_cluster() -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster of a head, given its arguments, to which nodes can be added; stopped after the test."""
    token = [Path(sys.executable).with_name("ray"), "get-auth-token", "--generate"]
    subprocess.run(token, check=True, capture_output=True)
    started = []

    def start(**head) -> Cluster:
        cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **head})
        started.append(cluster)
        return cluster

    yield start
    ray.shutdown()
    for cluster in started:
        cluster.shutdown()
