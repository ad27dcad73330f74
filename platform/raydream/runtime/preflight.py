"""What is checked before Ray starts: do the networks fit, can the limiter work, is the machine large enough?"""

import math
from dataclasses import dataclass

from raydream.buffer.limiter import Limiter, make_limiter
from raydream.config import DistillConfig, SynthesizeConfig
from raydream.errors import InputError
from raydream.networks import build_student, build_teacher
from raydream.schedule import Schedule
from raydream.students.distillation import steps_to_settle
from raydream.targets import check_targets
from raydream.teachers.checks import check_network, probe
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher


@dataclass(frozen=True)
class Checked:
    """What the checks found out, for the run to use.

    Attributes:
        teacher: loaded from its checkpoint; None where it is to be trained.
        settle_steps: training steps until the student's BN statistics may be competed with.
    """

    teacher: Teacher | None
    schedule: Schedule
    limiter: Limiter
    settle_steps: int


def check_machine(config: DistillConfig | SynthesizeConfig, cpus: float, gpus: float) -> None:
    """See that the student and as many generators as are needed can be scheduled at once.

    Args:
        cpus, gpus: of the machine or cluster.

    Raises:
        InputError: they would wait for each other for ever, or compute on a GPU that nobody reserves.
    """
    generators, student = config.generators, getattr(config, "student", None)
    workers = student.worker_counts[-1] if student else 0
    if config.device == "cuda" and not (generators.gpus and (student is None or student.gpus)):
        remedy = "give generators.gpus (and student.gpus) a share, such as 0.5 each on one GPU"
        raise InputError("generators.gpus", generators.gpus, "> 0 where device is cuda", remedy)
    if generators_that_fit(config, cpus, gpus) >= generators.min:
        return
    for kind, there in (("cpus", cpus), ("gpus", gpus)):
        each, taken = getattr(generators, kind), workers * getattr(student, kind, 0.0)
        wanted = generators.min * each + taken
        if wanted > there + 1e-9:
            raise InputError(
                f"generators.{kind}",
                each,
                f"at most {max(0.0, (there - taken) / generators.min):.3g}",
                f"{generators.min} generators (generators.min) and {workers} student workers reserve {wanted:g} "
                f"{kind.upper()} and there are {there:g}: ask for fewer processes or smaller fractions "
                f"(generators.min, generators.{kind}, student.workers, student.min_workers, student.{kind})",
            )


def generators_that_fit(config: DistillConfig | SynthesizeConfig, cpus: float, gpus: float) -> int:
    """How many of the generators that are wanted can be scheduled beside the student.

    More are not even asked for: Ray might give them what the student waits for.

    Args:
        cpus, gpus: of the machine or cluster.
    """
    if isinstance(config, SynthesizeConfig):
        return _generators_beside(config, 0, cpus, gpus)
    workers = student_workers_that_fit(config, cpus, gpus) or config.student.worker_counts[-1]
    return _generators_beside(config, workers, cpus, gpus)


def student_workers_that_fit(config: DistillConfig, cpus: float, gpus: float) -> int:
    """With how many Train workers the student can be scheduled; 0 where there is no room for it.

    As many as leave room for the generators that are needed at least; if none do, the fewest.

    Args:
        cpus, gpus: of the machine or cluster.
    """
    student = config.student
    for workers in student.worker_counts:
        if _generators_beside(config, workers, cpus, gpus) >= config.generators.min:
            return workers
    fewest = student.worker_counts[-1]
    fits = fewest * student.cpus <= cpus + 1e-9 and fewest * student.gpus <= gpus + 1e-9
    return fewest if fits else 0


def _generators_beside(config: DistillConfig | SynthesizeConfig, workers: int, cpus: float, gpus: float) -> int:
    generators, student = config.generators, getattr(config, "student", None)
    most = generators.count
    for kind, there in (("cpus", cpus), ("gpus", gpus)):
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
    else:
        teacher = load_teacher(config.teacher)
        network = teacher.network
    check_network(network, config.teacher, config.synthesis, trained=teacher is not None)
    check_targets(config.synthesis.targets, config.teacher.classes)
    return teacher


def check_run(config: DistillConfig) -> Checked:
    """Load and probe the networks, and build the limiter.

    Raises:
        InputError: a checkpoint, network, method or schedule that cannot work.
    """
    schedule = Schedule.of(config)
    teacher = check_teacher(config)
    settle_steps = _check_student(config)
    return Checked(teacher, schedule, make_limiter(config, schedule, settle_steps), settle_steps)


def _check_student(config: DistillConfig) -> int:
    student = build_student(config.student, config.teacher)
    for training in (False, True):
        shape = probe(student, config.teacher, "student.network", config.student.network, training)
        if shape != (2, config.teacher.classes):
            allowed = f"a network of {config.teacher.classes} classes, as the teacher"
            reason = f"a probe of two images gave {shape}"
            raise InputError("student.network", config.student.network, allowed, reason)
    return steps_to_settle(student)
