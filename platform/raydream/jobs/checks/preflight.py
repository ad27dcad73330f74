"""What is checked before Ray starts: do the networks fit, can the limiter work, is the machine large enough?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydream.buffer.limiter import Limiter, make_limiter
from raydream.config import (
    ContinualConfig,
    DistillConfig,
    GeneratorsConfig,
    PruneConfig,
    StudentConfig,
    SynthesizeConfig,
    TransferConfig,
)
from raydream.config.conversion import as_dict
from raydream.data import Dataset, check_data
from raydream.data.files import open_files
from raydream.data.image_set import open_shards
from raydream.data.sources import Images, Shards, evenly_spread
from raydream.errors import InputError, ShardError, first_line
from raydream.networks import build_student, build_teacher
from raydream.runs import run_folder
from raydream.runs.compared import compared
from raydream.schedule import Epochs, Schedule
from raydream.store.folders import Folder, folder_at
from raydream.store.shards import ShardStore
from raydream.students.distillation import steps_to_settle
from raydream.targets import check_targets
from raydream.teachers.checks import check_network, check_pupil, check_shapes
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher

PIECES_LOOKED_AT, ROWS_LOOKED_AT = 10, 256
"""of other people's images, before a run begins: parts of a set at most, and images of each"""


@dataclass(frozen=True)
class Checked:
    """What the checks found out, for the run to use.

    Attributes:
        teacher: loaded from its checkpoint; None where it is to be trained.
        settle_steps: training steps until the student's BN statistics may be competed with.
        data: real ones, to measure on.
    """

    teacher: Teacher | None
    schedule: Schedule
    limiter: Limiter
    settle_steps: int
    data: Dataset | None


Nodes = Sequence[Mapping[str, float]]
"""what each node of a machine or cluster offers, whoever holds it, by Ray's names: CPU, GPU, custom ones"""


def check_device(config: DistillConfig | SynthesizeConfig) -> None:
    """Raise InputError where processes would compute on a GPU that they have not reserved."""
    generators, student = config.generators, getattr(config, "student", None)
    if config.device == "cuda" and not (generators.gpus and (student is None or student.gpus)):
        remedy = "give generators.gpus (and student.gpus) a share, such as 0.5 each on one GPU"
        raise InputError("generators.gpus", generators.gpus, "> 0 where device is cuda", remedy)


def check_machine(config: DistillConfig | SynthesizeConfig, nodes: Nodes) -> None:
    """See that the student and as many generators as are needed can be scheduled at once.

    Args:
        nodes: that there are.

    Raises:
        InputError: they would wait for each other for ever.
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
    """The same for a cluster that is joined, unless it can grow: then nobody knows what there will be."""
    if not config.autoscaling:
        check_machine(config, nodes)


def _share_nodes(config: DistillConfig | SynthesizeConfig) -> bool:
    """Whether generators and a student take from each other; where they ask for different nodes, they do not."""
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
    """CPUs and GPUs of the nodes on which a role's processes may be placed, by the settings' names."""
    offering = [node for node in nodes if role.node_resource is None or node.get(role.node_resource, 0.0) > 0]
    return {kind: sum(node.get(name, 0.0) for node in offering) for kind, name in (("cpus", "CPU"), ("gpus", "GPU"))}


def _of_nodes(role: StudentConfig | GeneratorsConfig) -> str:
    return f" on nodes that offer {role.node_resource}" if role.node_resource else ""


def generators_that_fit(config: DistillConfig | SynthesizeConfig, nodes: Nodes) -> int:
    """How many of the generators that are wanted can be scheduled beside the student.

    More are not started: Ray might give them what the student waits for.

    Args:
        nodes: that there are.
    """
    if isinstance(config, SynthesizeConfig):
        return _generators_beside(config, 0, nodes)
    workers = student_workers_that_fit(config, nodes) or config.student.worker_counts[-1]
    return _generators_beside(config, workers, nodes)


def student_workers_that_fit(config: DistillConfig, nodes: Nodes) -> int:
    """With how many Train workers the student can be scheduled; 0 where there is no room for it.

    As many as leave room for the generators that are needed at least; if none do, the fewest.

    Args:
        nodes: that there are.
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
    """Processes of one kind.

    Attributes:
        resources: that Ray reserves for each.
        count: how many.
    """

    resources: dict[str, float]
    count: int


def missing(config: DistillConfig | SynthesizeConfig, nodes: Nodes) -> dict[str, Wanted]:
    """What a cluster that can grow is to be asked for: the processes of each role that it has no room for yet.

    Args:
        nodes: that there are.
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
    """How many batches' images are kept in memory, at least one.

    Args:
        object_store: bytes of the smallest node's.
    """
    memory, bytes_each = config.buffer.memory_mb, config.synthesis.batch_size * math.prod(config.teacher.input_shape)
    return max(1, int((object_store / 2 if memory is None else memory * 2**20) / bytes_each))


def check_teacher(config: DistillConfig | SynthesizeConfig) -> Teacher | None:
    """Load and probe the teacher, and see that it can be inverted as asked.

    Returns:
        the teacher; None where it is to be trained.

    Raises:
        InputError: a checkpoint, network, method, stage or target that cannot work.
    """
    if config.teacher.checkpoint is None:
        teacher, network = None, build_teacher(config.teacher)
        check_data(config.data, config.teacher, train=True)
    else:
        teacher = load_teacher(config.teacher)
        network = teacher.network
    check_network(network, config.teacher, config.synthesis, trained=teacher is not None)
    check_targets(config.synthesis.targets, config.teacher.classes)
    return teacher


def check_run(config: DistillConfig) -> Checked:
    """Load and probe the networks, read the real data, and build the limiter.

    Raises:
        InputError: a checkpoint, network, method or schedule that cannot work, or data that cannot be had.
    """
    schedule = Schedule.of(config)
    teacher = check_teacher(config)
    settle_steps = check_student(config)
    data = check_data(config.data, config.teacher)
    return Checked(teacher, schedule, make_limiter(config, schedule, settle_steps), settle_steps, data)


@dataclass(frozen=True)
class CheckedTransfer:
    """What the checks of a transfer found out.

    Attributes:
        teacher: loaded from its checkpoint; None where it is to be trained.
        images: to learn from; None where they are made first.
        epochs: over them.
        data: real ones, to measure on.
        compared: earlier runs, see `runs/compared.py`.
    """

    teacher: Teacher | None
    images: Images | None
    epochs: Epochs
    data: Dataset | None
    compared: list[dict[str, Any]]


def check_transfer(config: TransferConfig) -> CheckedTransfer:
    """Load and probe the networks, and see that images and real data are what they take.

    Raises:
        InputError: a checkpoint, a network, a set of images, real data or an earlier run that do not fit.
    """
    images, count = find_images(config)
    teacher = find_teacher(config, images)
    check_student(config)
    data, earlier = check_data(config.data, config.teacher), compared(as_dict(config), config.compare)
    return CheckedTransfer(teacher, images, Epochs(count, config.student.batch_size, config.epochs), data, earlier)


def find_images(config: TransferConfig | PruneConfig) -> tuple[Images | None, int]:
    """What a student is to learn from, None where that is made first; and how many images that are.

    Raises:
        InputError: see `open_images`; or there are less than a step takes.
    """
    images = open_images(config) if config.images else None
    count = config.new_images if images is None else len(images)
    check_batch(config, count)
    return images, count


def check_batch(config: TransferConfig | PruneConfig, count: int) -> None:
    """See that there are images for a step; raises InputError."""
    if config.student.batch_size > count:
        allowed = f"at most {count}, the images" + (f" in {config.images}" if config.images else " to be made")
        raise InputError("student.batch_size", config.student.batch_size, allowed, "lower it, or take more images")


def find_teacher(config: TransferConfig | PruneConfig, images: Images | None) -> Teacher | None:
    """The teacher of a run that is given its images or makes them; None where it is to be trained.

    Raises:
        InputError: a checkpoint, a network or data to train it on that do not fit.
    """
    teacher = None
    if images is None:
        teacher = check_teacher(config.making)
    elif config.teacher.checkpoint is None:
        check_data(config.data, config.teacher, train=True)
    else:
        teacher = load_teacher(config.teacher)
    check_shapes(build_teacher(config.teacher) if teacher is None else teacher.network, config.teacher)
    return teacher


def open_images(config: TransferConfig | PruneConfig) -> Images:
    """The share of the images named that a student is to learn from; some of them have been looked at.

    Raises:
        InputError: there are none, of another shape, they cannot be read, or their run is not done.
    """
    place, shape = folder_at(config.images, "images"), config.teacher.input_shape
    if _holds_shards(place, config.images):
        return Images.of(_images_of_run(config, open_shards(config.images)), config.share, config.seed)
    chosen = Images.of(open_files(config.images, "images", shape), config.share, config.seed)
    for rows in evenly_spread(chosen.pieces(), PIECES_LOOKED_AT):
        chosen.source.read(np.array(evenly_spread(rows.tolist(), ROWS_LOOKED_AT)))
    return chosen


def _holds_shards(place: Folder, where: str) -> bool:
    """Whether a folder is a run's, or one of a run's shards."""
    try:
        store = ShardStore(place / "images" if "images" in place.folders() else place)
        return place.has(run_folder.MARKER) or bool(store.committed())
    except OSError as error:
        raise InputError("images", where, "files that can be read", f"reading failed: {first_line(error)}") from error


def _images_of_run(config: TransferConfig | PruneConfig, store: ShardStore) -> Shards:
    whole, place, shape = "a run that is done", folder_at(config.images), config.teacher.input_shape
    if place.has(run_folder.MARKER) and not place.has(run_folder.SUMMARY):
        raise InputError("images", config.images, whole, "resume it, so that all of its images are there")
    try:
        extents = [store.extent(batch) for batch in store.committed()]
        looked_at = [store.read(batch) for batch in evenly_spread(store.committed(), PIECES_LOOKED_AT)]
    except ShardError as error:
        raise InputError("images", config.images, whole, f"{error}: resume it") from error
    if other := {extent[1:] for extent in extents} - {shape}:
        allowed = f"a run with images {shape}, as teacher.input_shape says"
        raise InputError("images", config.images, allowed, f"there are images {other.pop()}")
    if len(logits := {batch.teacher_logits.shape[1] for batch in looked_at}) > 1:
        remedy = f"there are {min(logits)} and {max(logits)} logits an image: name the images of one run"
        raise InputError("images", config.images, "images of one teacher", remedy)
    return Shards(store, store.committed(), [extent[0] for extent in extents])


def check_workers(config: TransferConfig | PruneConfig | ContinualConfig, read_cpus: float, nodes: Nodes) -> None:
    """See that the fewest Train workers can be scheduled, and what reads their images beside them.

    Args:
        read_cpus: that reading needs at least.
        nodes: that there are.

    Raises:
        InputError: they would wait for ever, or compute on a GPU that nobody reserves.
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


def workers_beside_reading(
    config: TransferConfig | PruneConfig | ContinualConfig, read_cpus: float, nodes: Nodes
) -> int:
    """With how many Train workers a student can be scheduled beside what reads its images; 0: with none.

    Args:
        read_cpus: that reading needs at least.
        nodes: that there are.
    """
    student, (cpus, gpus) = config.student, _offered(config.student, nodes).values()
    fits = (
        workers
        for workers in student.worker_counts
        if workers * student.cpus + read_cpus <= cpus + 1e-9 and workers * student.gpus <= gpus + 1e-9
    )
    return next(fits, 0)


def check_student(config: DistillConfig | TransferConfig) -> int:
    """See that the student takes the teacher's images and has its classes.

    Returns:
        training steps until its BN statistics may be competed with.

    Raises:
        InputError: it does not.
    """
    student = build_student(config.student, config.teacher)
    check_pupil(student, config.teacher, config.student.network)
    return steps_to_settle(student)
