"""What is checked before Ray starts: do the networks fit, can the limiter work, is the machine large enough?"""

from dataclasses import dataclass

from raydream.buffer.limiter import Limiter, make_limiter
from raydream.config import DistillConfig
from raydream.errors import InputError
from raydream.networks import build_student, build_teacher
from raydream.schedule import Schedule
from raydream.students.distillation import steps_to_settle
from raydream.teachers.loading import check_network, load_teacher, probe
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


def check_machine(config: DistillConfig, cpus: float, gpus: float) -> None:
    """See that all processes of a run can be scheduled at once.

    Args:
        cpus, gpus: of the machine or cluster.

    Raises:
        InputError: they would wait for each other for ever.
    """
    for kind, there in (("cpus", cpus), ("gpus", gpus)):
        each, workers = getattr(config.generators, kind), getattr(config.student, kind)
        wanted = config.generators.count * each + config.student.workers * workers
        if wanted > there + 1e-9:
            raise InputError(
                f"generators.{kind}",
                each,
                f"at most {max(0.0, (there - config.student.workers * workers) / config.generators.count):.3g}",
                f"{config.generators.count} generators and {config.student.workers} student workers reserve {wanted:g} "
                f"{kind.upper()} and there are {there:g}: ask for fewer processes or smaller fractions "
                f"(generators.count, generators.{kind}, student.workers, student.{kind})",
            )


def check_run(config: DistillConfig) -> Checked:
    """Load and probe the networks, and build the limiter.

    Raises:
        InputError: a checkpoint, network, method or schedule that cannot work.
    """
    schedule = Schedule.of(config)
    if config.teacher.checkpoint is None:
        teacher, network = None, build_teacher(config.teacher)
    else:
        teacher = load_teacher(config.teacher)
        network = teacher.network
    check_network(network, config.teacher, config.synthesis.method)
    settle_steps = _check_student(config)
    return Checked(teacher, schedule, make_limiter(config, schedule, settle_steps), settle_steps)


def _check_student(config: DistillConfig) -> int:
    student = build_student(config)
    for training in (False, True):
        shape = probe(student, config.teacher, "student.network", config.student.network, training)
        if shape != (2, config.teacher.classes):
            allowed = f"a network of {config.teacher.classes} classes, as the teacher"
            reason = f"a probe of two images gave {shape}"
            raise InputError("student.network", config.student.network, allowed, reason)
    return steps_to_settle(student)
