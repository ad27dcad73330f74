"""One configuration per job, made of those of its components."""

import dataclasses
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, Device, Name, NonNegativeInt, Positive, Reuse
from raydream.config.pruning import AdditionsConfig, PruningConfig
from raydream.config.quantization import QuantizationConfig
from raydream.config.runtime import BufferConfig, GeneratorsConfig, RoundsConfig, WorkersConfig
from raydream.config.student import StudentConfig
from raydream.config.synthesis import METHODS, SynthesisConfig, one_of
from raydream.config.teacher import DataConfig, TeacherConfig, TrainingConfig
from raydream.errors import InputError


@dataclass(frozen=True, config=STRICT)
class TeacherJobConfig:
    """Train a teacher on real data."""

    experiment: Name = "teacher"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    device: Device = "auto"
    """device of the network; auto: cuda or mps if available, else cpu; with several workers: cuda where each reserves a
    GPU"""
    stall_timeout_s: Positive = 1800.0
    """with several workers: seconds without any step after which a run gives up"""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    workers: WorkersConfig = Field(default_factory=WorkersConfig)

    def __post_init__(self) -> None:
        self.training.check_classes(self.teacher.classes)
        self.teacher.check_unobserved()
        if self.training.batch_size % self.workers.count:
            allowed = f"a divisor of training.batch_size ({self.training.batch_size})"
            remedy = "each step's images are split evenly among the workers, so change one of the two"
            raise InputError("workers.count", self.workers.count, allowed, remedy)
        if self.workers.count > 1 and self.device == "cuda" and not self.workers.gpus:
            remedy = "give it a share, such as 1 for each worker"
            raise InputError("workers.gpus", self.workers.gpus, "> 0 where device is cuda", remedy)
        if self.data.name == "none":
            raise InputError("data.name", "none", "a data set", "a teacher is trained on real data: name some")
        if self.teacher.checkpoint is not None:
            remedy = "this job trains a network from scratch: leave it out"
            raise InputError("teacher.checkpoint", self.teacher.checkpoint, "null", remedy)


@dataclass(frozen=True, config=STRICT)
class DistillConfig:
    """One experiment: invert a teacher, and distill a student from the images."""

    experiment: Name = "experiment"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    seed: NonNegativeInt = 0
    """run seed, from which all other seeds are derived"""
    device: Device = "auto"
    """device of the networks; auto: cuda where a process reserves a GPU, else mps if available, else cpu"""
    reuse: Reuse = "runs"
    """folder of earlier runs, whose images are reused where they equal, to the bit, those that would be made (same
    teacher, settings, seed, processor and threads); empty: all are made again"""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    student: StudentConfig = Field(default_factory=StudentConfig)
    generators: GeneratorsConfig = Field(default_factory=GeneratorsConfig)
    buffer: BufferConfig = Field(default_factory=BufferConfig)
    rounds: RoundsConfig = Field(default_factory=RoundsConfig)
    autoscaling: bool = False
    """the joined cluster can grow: request missing resources, and wait half an hour for them"""

    def __post_init__(self) -> None:
        _check_source(self)


@dataclass(frozen=True, config=STRICT)
class SynthesizeConfig:
    """Invert a teacher into a data set of images."""

    experiment: Name = "images"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    seed: NonNegativeInt = 0
    """run seed, from which all other seeds are derived"""
    device: Device = "auto"
    """device of the networks; auto: cuda where a generator reserves a GPU, else mps if available, else cpu"""
    images: Count | None = None
    """number of images to make, in batches as even as possible, of at most synthesis.batch_size; null: 256"""
    start_from: str | None = None
    """folder of a run whose images initialize the new ones, instead of N(0, 1): batch by batch, with their targets"""
    png: bool = False
    """also write the images as png/<target>/<batch>-<row>.png, as torchvision's ImageFolder reads them"""
    reuse: Reuse = "runs"
    """folder of earlier runs, whose images are reused where they equal, to the bit, those that would be made (same
    teacher, settings, seed, processor and threads); empty: all are made again"""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    synthesis: SynthesisConfig = Field(default_factory=lambda: SynthesisConfig(method="deep_inversion"))
    generators: GeneratorsConfig = Field(default_factory=GeneratorsConfig)
    autoscaling: bool = False
    """the joined cluster can grow: request missing resources, and wait half an hour for them"""

    def __post_init__(self) -> None:
        _check_source(self)
        method = self.synthesis.method
        if METHODS[method].without_student:
            allowed = one_of([name for name, each in METHODS.items() if not each.without_student])
            remedy = f"{method} needs a student to compete with, which raydream distill trains: its images can be named"
            raise InputError("synthesis.method", method, allowed, remedy)
        if self.synthesis.start == "images":
            raise InputError("synthesis.start", "images", "noise", "name a run in start_from instead")
        if self.start_from is not None and self.synthesis.learns:
            allowed = f"null with synthesis.method {self.synthesis.method}, which starts from latent codes"
            raise InputError("start_from", self.start_from, allowed, "leave it out, or choose an inversion")
        if self.start_from is not None and self.images is not None:
            remedy = "all images of that run are started from: leave one of the two out"
            raise InputError("images", self.images, "null beside start_from", remedy)


@dataclass(frozen=True, config=STRICT)
class DoctorConfig(SynthesizeConfig):
    """Diagnose a teacher before it is inverted. All settings of `raydream synthesize` are taken, and suggested."""

    experiment: Name = "doctor"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    real: str = ""
    """a few real images to judge normalization, channel order and size by (256 at most are read, 16 decide): a .parquet
    file or a folder of these, an .npz file, or a folder of pictures, resized where they are of another size; with
    labels, the order of channels is judged by them; empty: all is judged by the network alone"""
    updates: NonNegativeInt = 50
    """number of pixel updates of the probes, which are four short inversions of 32 images; 0: no probe"""
    apply: str = ""
    """new file to write the suggestions to, as a configuration for raydream synthesize; empty: none is written"""


class FromImages(Protocol):
    """The settings of jobs that take images, or make them first: transfer, and all applications."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def experiment(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> Device: ...
    @property
    def images(self) -> str: ...
    @property
    def share(self) -> float: ...
    @property
    def new_images(self) -> int: ...
    @property
    def stall_timeout_s(self) -> float: ...
    @property
    def reuse(self) -> str: ...
    @property
    def teacher(self) -> TeacherConfig: ...
    @property
    def training(self) -> TrainingConfig: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def student(self) -> StudentConfig: ...
    @property
    def generators(self) -> GeneratorsConfig: ...
    @property
    def making(self) -> SynthesizeConfig: ...


@dataclass(frozen=True, config=STRICT)
class TransferConfig:
    """Train a student from scratch on a finished set of images, which is made first where none is named."""

    experiment: Name = "transfer"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    seed: NonNegativeInt = 0
    """run seed, from which all other seeds are derived"""
    device: Device = "auto"
    """device of the networks; auto: cuda where a worker reserves a GPU, else mps if available, else cpu"""
    images: str = ""
    """training images: the folder of a completed run that made images; or any images (their labels are ignored): a
    .parquet file or a folder of these, an .npz file, or a folder of pictures, as data.train describes them; empty:
    images are made first, by `synthesis`"""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of these images to learn from, drawn by the seed"""
    new_images: Count = 1024
    """number of images to make where none are named"""
    epochs: Count = 90
    """passes over all images (the paper's section 4.4: 90, or 250 with MixUp)"""
    compare: str | tuple[str, ...] = ()
    """comma-separated folders of earlier runs of this job to compare with this one in its report, such as those of the
    same student on other images"""
    feed: Literal["auto", "memory", "stream"] = "auto"
    """path of images to the student; memory: all of them in Ray's object store, in a reproducible order;
    stream: read from their shards again in each epoch, for sets that outgrow memory; auto: memory where they fit into
    half of the smallest node's object store"""
    stall_timeout_s: Positive = 1800.0
    """seconds without any distillation step after which a run gives up"""
    reuse: Reuse = "runs"
    """folder of earlier runs, whose images are reused where they equal, to the bit, those that would be made (same
    teacher, settings, seed, processor and threads); empty: all are made again"""
    teacher: TeacherConfig = Field(default_factory=lambda: TeacherConfig(network="images"))
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    data: DataConfig = Field(default_factory=lambda: DataConfig(name="images"))
    student: StudentConfig = Field(default_factory=StudentConfig)
    synthesis: SynthesisConfig = Field(default_factory=lambda: SynthesisConfig(method="deep_inversion"))
    generators: GeneratorsConfig = Field(default_factory=GeneratorsConfig)

    def __post_init__(self) -> None:
        check_images(self)

    @property
    def making(self) -> SynthesizeConfig:
        """The settings of the images that are made first; raises InputError where they cannot be made."""
        return making_of(self, self.synthesis)


@dataclass(frozen=True, config=STRICT)
class PruneConfig:
    """Make a teacher smaller by whole channels, with images alone, which are made first where none are named."""

    experiment: Name = "prune"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    seed: NonNegativeInt = 0
    """run seed, from which all other seeds are derived"""
    device: Device = "auto"
    """device of the networks; auto: cuda where student.gpus reserves a GPU, else mps if available, else cpu"""
    images: str = ""
    """images to prune with: folder of a completed run that made images; or any images, as in raydream transfer; empty:
    images are made first, by `synthesis` (adaptive: as deep_inversion, as there is no pruned network yet to compete
    with)"""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of those images to use, drawn by the seed"""
    new_images: Count = 1024
    """number of images to make where none are named"""
    stall_timeout_s: Positive = 1800.0
    """seconds without progress of the pruning after which a run gives up"""
    reuse: Reuse = "runs"
    """folder of earlier runs, whose images are reused where they equal, to the bit, those that would be made (same
    teacher, settings, seed, processor and threads); empty: all are made again"""
    pruning: PruningConfig = Field(default_factory=PruningConfig)
    additions: AdditionsConfig = Field(default_factory=AdditionsConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    teacher: TeacherConfig = Field(default_factory=lambda: TeacherConfig(network="images"))
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    student: StudentConfig = Field(default_factory=lambda: StudentConfig(network="teacher", learning_rate=0.02))
    data: DataConfig = Field(default_factory=lambda: DataConfig(name="images"))
    generators: GeneratorsConfig = Field(default_factory=GeneratorsConfig)

    def __post_init__(self) -> None:
        check_images(self)
        _check_recovery(self, "what is left of the teacher")

    @property
    def making(self) -> SynthesizeConfig:
        """The settings of the images that are made first; raises InputError where they cannot be made."""
        method = METHODS[self.synthesis.method].without_student or self.synthesis.method
        return making_of(self, replace(self.synthesis, method=method))


QUANTIZED_STUDENT: dict[str, Any] = {"learning_rate": 0.01, "weight_decay": 1e-4, "precision": "fp32"}
"""default settings of a quantized network that learns; bf16 would blur the grid"""


@dataclass(frozen=True, config=STRICT)
class QuantizeConfig:
    """Quantize a teacher to few bits, with images alone, which are made first where none are named."""

    experiment: Name = "quantize"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    seed: NonNegativeInt = 0
    """run seed, from which all other seeds are derived"""
    device: Device = "auto"
    """device of the networks; auto: cuda where student.gpus reserves a GPU, else mps if available, else cpu"""
    images: str = ""
    """images to calibrate on and learn from: folder of a completed run that made images; or any images, as in raydream
    transfer; empty: images are made first, by `synthesis` (adaptive: as deep_inversion, as there is no quantized
    network yet to compete with)"""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """share of those images to use, drawn by the seed"""
    new_images: Count = 1024
    """number of images to make where none are named"""
    stall_timeout_s: Positive = 1800.0
    """seconds without progress of the quantization after which a run gives up"""
    reuse: Reuse = "runs"
    """folder of earlier runs, whose images are reused where they equal, to the bit, those that would be made (same
    teacher, settings, seed, processor and threads); empty: all are made again"""
    quantization: QuantizationConfig = Field(default_factory=QuantizationConfig)
    additions: AdditionsConfig = Field(default_factory=AdditionsConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    teacher: TeacherConfig = Field(default_factory=lambda: TeacherConfig(network="images"))
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    student: StudentConfig = Field(default_factory=lambda: StudentConfig(network="teacher", **QUANTIZED_STUDENT))
    data: DataConfig = Field(default_factory=lambda: DataConfig(name="images"))
    generators: GeneratorsConfig = Field(default_factory=GeneratorsConfig)

    def __post_init__(self) -> None:
        check_images(self)
        _check_recovery(self, "the quantized network")
        if self.additions.rounds and self.quantization.method != "distillation":
            remedy = "nothing is trained on the images of rounds: set it to 0, or quantization.method to distillation"
            raise InputError("additions.rounds", self.additions.rounds, "0 with post_training", remedy)
        if self.student.precision == "bf16":
            remedy = "bf16 holds fewer digits than 8 bits on a grid need: leave it out"
            raise InputError("student.precision", "bf16", "fp32 or auto", remedy)

    @property
    def making(self) -> SynthesizeConfig:
        """The settings of the images that are made first; raises InputError where they cannot be made."""
        method = METHODS[self.synthesis.method].without_student or self.synthesis.method
        return making_of(self, replace(self.synthesis, method=method))


def _check_recovery(config: PruneConfig | QuantizeConfig, changed: str) -> None:
    """Check a job that changes a teacher and distills from the original; raises InputError."""
    config.teacher.check_unobserved()
    if config.additions.rounds and not config.synthesis.competes:
        remedy = f"rounds make images that compete with {changed}: set additions.rounds to 0 without them"
        competing = one_of([name for name, each in METHODS.items() if each.competes])
        allowed = f"{competing}, with a competition, where additions.rounds > 0"
        raise InputError("synthesis.method", config.synthesis.method, allowed, remedy)
    if config.additions.rounds and config.synthesis.start == "images":
        raise InputError("synthesis.start", "images", "noise where additions.rounds > 0", "leave it out")
    if config.student.network != "teacher" or config.student.arguments:
        remedy = f"the student is {changed}: leave its network and arguments out"
        raise InputError("student.network", config.student.network, "teacher", remedy)
    if config.student.ema:
        remedy = f"{changed} itself is measured and saved: leave it out"
        raise InputError("student.ema", config.student.ema, "0", remedy)
    if config.student.workers != 1:
        raise InputError("student.workers", config.student.workers, "1", "one process does all the work")
    if config.device == "cuda" and not config.student.gpus:
        remedy = "give it a share, such as 1"
        raise InputError("student.gpus", config.student.gpus, "> 0 where device is cuda", remedy)


def check_images(config: FromImages) -> None:
    """Check the sources of images and teacher; raises InputError where they do not fit."""
    if not config.images and config.teacher.network == "images":
        allowed = "the folder of a run that has images, or other images, where no teacher is named"
        raise InputError("images", config.images, allowed, "give it as --images DIR, or name a teacher to invert")
    if not config.images and config.share < 1:
        raise InputError("share", config.share, "1 where no images are named", "make fewer (new_images)")
    _check_source(config)
    if not config.images:
        _ = config.making


def making_of(config: FromImages, synthesis: SynthesisConfig) -> SynthesizeConfig:
    """Return the settings by which a job's own images are made; raises InputError where they cannot be made."""
    return SynthesizeConfig(
        experiment=config.experiment,
        seed=config.seed,
        device=config.device,
        images=config.new_images,
        reuse=config.reuse,
        teacher=config.teacher,
        training=config.training,
        data=config.data,
        synthesis=synthesis,
        generators=config.generators,
    )


@dataclass(frozen=True, config=STRICT)
class EvaluateConfig:
    """Let other networks classify the images of a run."""

    experiment: Name = "evaluation"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    images: str = ""
    """folder of a run with images"""
    verifiers: str | tuple[TeacherConfig, ...] = ()
    """independent networks, each described as a teacher; or, comma-separated, NETWORK=CHECKPOINT for one with the input
    and the classes of the run's teacher, and run:DIR for the network that a run trained"""
    device: Device = "auto"
    """device of the networks; auto: cuda or mps if available, else cpu"""

    def __post_init__(self) -> None:
        if not self.images:
            raise InputError("images", self.images, "the folder of a run that has images", "give it as --images DIR")


def _check_source(config: DistillConfig | SynthesizeConfig | FromImages) -> None:
    """Check that a teacher is named, or can be trained; raises InputError where it is neither."""
    config.training.check_classes(config.teacher.classes)
    if config.teacher.checkpoint is None and config.data.name == "none":
        raise InputError(
            "teacher.checkpoint",
            None,
            "the path of a checkpoint where data.name is none",
            "name the teacher's weights, or a data set to train it on",
        )
