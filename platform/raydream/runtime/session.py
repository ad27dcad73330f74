"""A Ray session: started for this run alone, or joined if a cluster's address is given."""

import contextlib
import ipaddress
import logging
import os
import platform
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydream.compute import use_device
from raydream.config import GeneratorsConfig, StudentConfig
from raydream.errors import RaydreamError, first_line
from raydream.interruption import signals_held
from raydream.machine import code_version, machine_cpus
from raydream.runtime.failures import own_error
from raydream.runtime.gpus import share_to_measure_on, uses_gpus
from raydream.runtime.placement import Nodes
from raydream.runtime.private_ray import available_resources_per_node, started_as_here

Roles = Sequence[StudentConfig | GeneratorsConfig]


@contextlib.contextmanager
def ray_session(check: Callable[[Nodes], None], roles: Roles, namespace: str) -> Iterator[None]:
    """Run Ray within a `with` block; a Ray that was started here is stopped at its end.

    A cluster is joined only if RAY_ADDRESS names one, as `ray job submit` does; otherwise a private one is started,
    even if another Ray runs on this machine. All its processes listen on 127.0.0.1 alone.

    Args:
        check: called with what the nodes offer; raises InputError if that is too little.
        roles: of the run's processes.
        namespace: of the run's actors, so that two runs can share a cluster.

    Raises:
        InputError: see `check`.
        RaydreamError: Ray did not start; or a Ray error in the block, translated by `own_error`.
    """
    address = os.environ.get("RAY_ADDRESS")
    own = {} if address else {"num_cpus": machine_cpus(), "include_dashboard": False, "resources": _custom(roles)}
    try:
        # If interrupted, `ray.init` can hang; it and `ray.shutdown` then leave processes behind.
        with signals_held(), started_as_here(private=not address):
            try:
                ray.init(
                    address=address or "local",
                    namespace=namespace,
                    logging_level=logging.WARNING,
                    log_to_driver=False,
                    **own,
                )
            except Exception as error:  # Ray raises many kinds, a plain Exception where a node starts too slowly
                raise RaydreamError(f"Ray did not start: {first_line(error)}") from error
        _tighten_token()
        check(cluster_nodes())
        yield
    except ray.exceptions.RayError as error:
        raise own_error(error, "a process that the run cannot do without was lost") from error
    finally:
        with signals_held():
            ray.shutdown()


def _custom(roles: Roles) -> dict[str, float]:
    """Return the custom resources that processes request; a private Ray offers them all."""
    return {role.node_resource: 1.0 for role in roles if role.node_resource}


def machine_nodes(roles: Roles) -> Nodes:
    """Return what Ray will offer once it is started on this machine."""
    return [{"CPU": machine_cpus(), "GPU": torch.cuda.device_count(), **_custom(roles)}]


def cluster_nodes() -> Nodes:
    """Return what each available node offers, in use or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def can_be_placed(resources: dict[str, float], count: int, patience_s: float) -> bool:
    """Return whether a number of processes, each with these resources, find a place within some seconds."""
    group = placement_group([resources] * count)
    try:
        return bool(group.wait(patience_s))
    finally:
        remove_placement_group(group)


def free_places(resources: dict[str, float]) -> int:
    """Return how many more processes, each with these resources, nodes have room for now; does not wait."""
    asked = {name: amount for name, amount in resources.items() if amount}
    nodes = available_resources_per_node().values()
    return sum(min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in asked.items()) for node in nodes)


def actor_options(resources: dict[str, float]) -> dict[str, Any]:
    """Return Ray's options for an actor with these resources."""
    custom = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
    return {"num_cpus": resources.get("CPU", 0.0), "num_gpus": resources.get("GPU", 0.0), "resources": custom}


def beside_the_driver() -> NodeAffinitySchedulingStrategy:
    """Return Ray's options to place an essential process on the driver's node, so that no other node's loss ends it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def share_of_gpu_left(device: str, processes: Sequence[float]) -> float:
    """Return the share of a GPU to measure on, see `share_to_measure_on`; call it before the run's processes start.

    On a cluster of several nodes it is 0, as the nodes that will have room are unknown.

    Args:
        device: as the run's settings name it.
        processes: the GPUs that each of the run's processes reserves.
    """
    nodes = list(available_resources_per_node().values())
    return share_to_measure_on(device, int(nodes[0].get("GPU", 0.0)), processes) if len(nodes) == 1 else 0.0


def device_of_driver(device: str, processes: Sequence[float]) -> torch.device:
    """Return the driver's device while the run's other processes are idle: a GPU of this machine, if these use GPUs.

    Args:
        device: as the run's settings name it.
        processes: the GPUs that each of the run's processes reserves.
    """
    if is_local() and torch.cuda.is_available() and uses_gpus(device, processes):
        return use_device("cuda", torch.get_num_threads(), torch.cuda.device_count())
    return torch.device("cpu")


def object_store_bytes() -> int:
    """Return the bytes of the smallest node's object store; what all processes share has to fit there."""
    return int(min(node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]))


def machine_text() -> dict[str, Any]:
    """Describe the machine that figures were measured on, for a summary."""
    libraries = {"python": platform.python_version(), "torch": torch.__version__, "ray": ray.__version__}
    return {
        "versions": {"raydream": code_version()} | libraries,
        "machine": f"{platform.machine()}, {machine_cpus()} CPUs, {torch.cuda.device_count()} GPUs",
    }


def on_loopback() -> bool:
    """Return whether this Ray is a private one that only this machine can reach."""
    return bool(ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback)


def is_local() -> bool:
    """Return whether a run would start Ray on this machine, so that the machine's size is known beforehand."""
    return not os.environ.get("RAY_ADDRESS")


def _tighten_token() -> None:
    # Ray writes its authentication token readable by all users of the machine.
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() and stat.S_IMODE(token.stat().st_mode) & 0o077:
        token.chmod(0o600)
