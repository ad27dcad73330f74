"""Checks whether the processes of a run fit onto the nodes, and how many do. Arithmetic; nothing here imports Ray."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raydream.config import (
    ContinualConfig,
    DistillConfig,
    FromImages,
    GeneratorsConfig,
    StudentConfig,
    SynthesizeConfig,
)
from raydream.errors import InputError

READ_CPUS = 0.5
"""CPUs reserved by a task that reads images; without room for one, workers would wait forever"""

Nodes = Sequence[Mapping[str, float]]
"""what each node of a machine or cluster offers, in use or not, by Ray's names: CPU, GPU, custom ones"""


def check_device(config: DistillConfig | SynthesizeConfig) -> None:
    """Raise InputError if processes would compute on a GPU that they have not reserved."""
    generators, student = config.generators, getattr(config, "student", None)
    if config.device == "cuda" and not (generators.gpus and (student is None or student.gpus)):
        remedy = "give generators.gpus (and student.gpus) a share, such as 0.5 each on one GPU"
        raise InputError("generators.gpus", generators.gpus, "> 0 where device is cuda", remedy)


def check_machine(config: DistillConfig | SynthesizeConfig, nodes: Nodes) -> None:
    """Check that the student and the least number of generators can be scheduled at once.

    Args:
        nodes: the available nodes.

    Raises:
        InputError: they would wait for each other forever.
    """
    generators, student = config.generators, getattr(config, "student", None)
    workers = student.worker_counts[-1] if student else 0
    shared = _share_nodes(config)
    if student is not None and not shared:
        _check_room("student", student, workers, nodes)
    if generators_that_fit(config, nodes) >= generators.min:
        return
    for kind, there in _offered(generators, nodes).items():
        each, taken = getattr(generators, kind), workers * getattr(student, kind, 0.0) if shared else 0.0
        wanted = generators.min * each + taken
        if wanted > there + 1e-9:
            beside = f" and {workers} student workers" if shared else ""
            raise InputError(
                f"generators.{kind}",
                each,
                f"at most {max(0.0, (there - taken) / generators.min):.3g}",
                f"{generators.min} generators (generators.min){beside} reserve {wanted:g} {kind.upper()} and there "
                f"are {there:g}{_of_nodes(generators)}: ask for fewer processes or smaller fractions "
                f"(generators.min, generators.{kind}, student.workers, student.min_workers, student.{kind}), or set "
                "autoscaling where a cluster can grow",
            )


def check_cluster(config: DistillConfig | SynthesizeConfig, nodes: Nodes) -> None:
    """Run `check_machine` for a cluster that is joined, unless it can grow and its later size is unknown."""
    if not config.autoscaling:
        check_machine(config, nodes)


def _share_nodes(config: DistillConfig | SynthesizeConfig) -> bool:
    """Return whether generators and a student compete for resources; on different nodes they do not."""
    student = getattr(config, "student", None)
    return student is not None and student.node_resource == config.generators.node_resource


def _check_room(role: str, each: StudentConfig, workers: int, nodes: Nodes) -> None:
    for kind, there in _offered(each, nodes).items():
        if workers * getattr(each, kind) > there + 1e-9:
            raise InputError(
                f"{role}.{kind}",
                getattr(each, kind),
                f"at most {there / workers:.3g}",
                f"{workers} workers reserve as much each, and there are {there:g}{_of_nodes(each)}: ask for fewer, or "
                "set autoscaling where a cluster can grow",
            )


def _offered(role: StudentConfig | GeneratorsConfig, nodes: Nodes) -> dict[str, float]:
    """Return the CPUs and GPUs of the nodes on which a role's processes may be placed, by the settings' names."""
    offering = [node for node in nodes if role.node_resource is None or node.get(role.node_resource, 0.0) > 0]
    return {kind: sum(node.get(name, 0.0) for node in offering) for kind, name in (("cpus", "CPU"), ("gpus", "GPU"))}


def _of_nodes(role: StudentConfig | GeneratorsConfig) -> str:
    return f" on nodes that offer {role.node_resource}" if role.node_resource else ""


def generators_that_fit(config: DistillConfig | SynthesizeConfig, nodes: Nodes) -> int:
    """Return how many of the wanted generators can be scheduled beside the student.

    No more are started: Ray might give them what the student waits for.

    Args:
        nodes: the available nodes.
    """
    if isinstance(config, SynthesizeConfig):
        return _generators_beside(config, 0, nodes)
    workers = student_workers_that_fit(config, nodes) or config.student.worker_counts[-1]
    return _generators_beside(config, workers, nodes)


def student_workers_that_fit(config: DistillConfig, nodes: Nodes) -> int:
    """Return the number of Train workers with which the student can be scheduled; 0 if there is no room for it.

    The most that leave room for the least number of generators; if none do, the fewest.

    Args:
        nodes: the available nodes.
    """
    student, offered = config.student, _offered(config.student, nodes)
    fitting = [
        workers
        for workers in student.worker_counts
        if all(workers * getattr(student, kind) <= there + 1e-9 for kind, there in offered.items())
    ]
    if not _share_nodes(config):
        return max(fitting, default=0)
    beside = (workers for workers in fitting if _generators_beside(config, workers, nodes) >= config.generators.min)
    return next(beside, min(fitting, default=0))


@dataclass(frozen=True)
class Wanted:
    """Processes of one kind that a run wants.

    Attributes:
        resources: reserved by Ray for each.
        count: number of processes.
    """

    resources: dict[str, float]
    count: int


def missing(config: DistillConfig | SynthesizeConfig, nodes: Nodes) -> dict[str, Wanted]:
    """Return the processes of each role that a cluster has no room for yet, to request from its autoscaler.

    Args:
        nodes: the available nodes.
    """
    generators = config.generators
    asked = {"generators": Wanted(generators.resources, generators.number - generators_that_fit(config, nodes))}
    if isinstance(config, DistillConfig):
        student = config.student
        asked["student"] = Wanted(student.resources, student.workers - student_workers_that_fit(config, nodes))
    return asked


def _generators_beside(config: DistillConfig | SynthesizeConfig, workers: int, nodes: Nodes) -> int:
    generators, student = config.generators, getattr(config, "student", None)
    if not _share_nodes(config):
        workers = 0
    most = generators.number
    for kind, there in _offered(generators, nodes).items():
        each, taken = getattr(generators, kind), workers * getattr(student, kind, 0.0)
        if each:
            most = min(most, math.floor((there - taken) / each + 1e-9))
        elif taken > there + 1e-9:
            most = 0
    return max(0, most)


def batches_that_fit(config: DistillConfig, object_store: int) -> int:
    """Return the number of batches whose images are kept in memory, at least one.

    Args:
        object_store: bytes of the smallest node's.
    """
    memory, bytes_each = config.buffer.memory_mb, config.synthesis.batch_size * math.prod(config.teacher.input_shape)
    return max(1, int((object_store / 2 if memory is None else memory * 2**20) / bytes_each))


def check_workers(config: FromImages | ContinualConfig, read_cpus: float, nodes: Nodes) -> None:
    """Check that the fewest Train workers can be scheduled beside the tasks that read their images.

    Args:
        read_cpus: CPUs that reading needs at least.
        nodes: the available nodes.

    Raises:
        InputError: they would wait forever, or compute on a GPU that no process reserves.
    """
    student = config.student
    if config.device == "cuda" and not student.gpus:
        remedy = "give it a share, such as 1 for each worker"
        raise InputError("student.gpus", student.gpus, "> 0 where device is cuda", remedy)
    if workers_beside_reading(config, read_cpus, nodes):
        return
    workers, (cpus, gpus) = student.worker_counts[-1], _offered(student, nodes).values()
    kind, each, there = ("cpus", student.cpus, cpus - read_cpus)
    if workers * each <= there + 1e-9:
        kind, each, there = ("gpus", student.gpus, gpus)
    reading = f" beside {read_cpus:g} CPUs for reading images" if read_cpus and kind == "cpus" else ""
    raise InputError(
        f"student.{kind}",
        each,
        f"at most {max(0.0, there / workers):.3g}",
        f"{workers} workers reserve {workers * each:g} {kind.upper()}{reading}, and there are "
        f"{cpus if kind == 'cpus' else gpus:g}: ask for fewer workers or smaller fractions "
        f"(student.workers, student.min_workers, student.{kind})",
    )


def workers_beside_reading(config: FromImages | ContinualConfig, read_cpus: float, nodes: Nodes) -> int:
    """Return the number of Train workers that can be scheduled beside the tasks that read their images; 0: none.

    Args:
        read_cpus: CPUs that reading needs at least.
        nodes: the available nodes.
    """
    student, (cpus, gpus) = config.student, _offered(config.student, nodes).values()
    fits = (
        workers
        for workers in student.worker_counts
        if workers * student.cpus + read_cpus <= cpus + 1e-9 and workers * student.gpus <= gpus + 1e-9
    )
    return next(fits, 0)
