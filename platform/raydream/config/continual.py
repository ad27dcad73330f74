"""Settings of learning new classes step by step."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, Device, Name, NonNegativeInt, Positive
from raydream.config.student import StudentConfig
from raydream.config.synthesis import SynthesisConfig, default_coefficients
from raydream.config.teacher import DataConfig, TeacherConfig, TrainingConfig
from raydream.errors import InputError

INVERTING_METHODS = ("deep_inversion", "adaptive", "deepdream", "balanced", "abd")
"""those that make images of the old classes"""
ALL_METHODS = (*INVERTING_METHODS, "lwf_mc", "finetune", "oracle_distill", "oracle_classify")


@dataclass(frozen=True, config=STRICT)
class ContinualConfig:
    """Teach a network new classes from their real images, and the old ones from images inverted from it."""

    experiment: Name = "continual"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    seed: NonNegativeInt = 0
    """run seed, from which all other seeds are derived"""
    seeds: Count = 3
    """number of runs of each method, with seeds from `seed` on; runs of one seed start alike"""
    device: Device = "auto"
    """device of the networks; auto: cuda where student.gpus reserves a GPU, else mps if available, else cpu"""
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = ALL_METHODS
    """methods to compare; deep_inversion, adaptive, deepdream: eq. 11 with images by that synthesizer; balanced: eq. 11
    with a balanced softmax, the feature distance of "Always Be Dreaming" and DeepInversion's images; abd: these images
    with all of that paper's losses; lwf_mc: a binary cross-entropy for each class, without images of old ones;
    finetune: new images alone; oracle_distill, oracle_classify: real images of old classes, with the old network's
    outputs or with their labels"""
    steps: tuple[DataConfig, ...] = ()
    """the data of each step's new classes, in order; each as `data`, with `classes`; what it lacks is digits"""
    images_per_class: Count = 250
    """images of each old class to make before each step (the paper: 250); for oracles: most real ones"""
    epochs: Count = 40
    """passes over the new images in each step, with an equal number of old ones"""
    stall_timeout_s: Positive = 1800.0
    """seconds without progress after which a run gives up"""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    student: StudentConfig = Field(default_factory=lambda: StudentConfig(network="teacher", learning_rate=0.02))

    def __post_init__(self) -> None:
        if not self.steps:
            raise InputError("steps", [], "a data set of new classes for each step", "give it as in configs/")
        if self.data.name == "none":
            raise InputError("data.name", "none", "the old classes' data, to measure on", "name them")
        if unknown := [method for method in self.methods if method not in ALL_METHODS]:
            raise InputError("methods", unknown[0], f"one of {', '.join(ALL_METHODS)}", "leave it out")
        if len({*self.methods}) < len(self.methods):
            raise InputError("methods", list(self.methods), "each method once", "leave out what is named twice")
        for index, step in enumerate(self.steps):
            self._check_step(index, step)
        self.teacher.check_unobserved()
        student = self.student
        if student.network != "teacher" or student.arguments:
            remedy = "the teacher itself learns: leave the student's network and arguments out"
            raise InputError("student.network", student.network, "teacher", remedy)
        for name, value, only in (("ema", student.ema, 0.0), ("workers", student.workers, 1)):
            if value != only:
                raise InputError(f"student.{name}", value, f"{only}", "each method learns in one process of its own")
        if self.device == "cuda" and not student.gpus:
            raise InputError("student.gpus", student.gpus, "> 0 where device is cuda", "give it a share, such as 0.5")
        if student.view.mixup:
            remedy = "blended images have no one label: leave it out"
            raise InputError("student.view.mixup", student.view.mixup, "0", remedy)

    def _check_step(self, index: int, step: DataConfig) -> None:
        field = f"steps.{index}"
        if step.name == "none":
            raise InputError(f"{field}.name", step.name, "a data set", "new classes are learned from real images")
        if not step.classes:
            raise InputError(f"{field}.classes", [], "one class at least", "name those that join in this step")
        for earlier in (self.data, *self.steps[:index]):
            known = earlier.classes or tuple(range(self.teacher.classes))
            if _origin(earlier) == _origin(step) and (twice := sorted({*known} & {*step.classes})):
                allowed = "classes that the network does not know yet"
                raise InputError(f"{field}.classes", list(step.classes), allowed, f"{twice[0]} is named before")


def _origin(data: DataConfig) -> tuple[object, ...]:
    return data.name, data.train, data.test, data.folder


def default_coefficients_if_inverted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the coefficients that apply beneath a user's nested settings of `raydream extend`.

    As `default_coefficients`, if one of the methods makes images of the old classes.
    """
    methods = settings.get("methods", ALL_METHODS)
    inverts = isinstance(methods, Sequence) and any(method in INVERTING_METHODS for method in methods)
    return default_coefficients(settings) if inverts else {}
