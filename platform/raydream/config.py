"""Every setting of a run: small frozen dataclasses, one per component, checked field by field.

A field's type and `Field(...)` say what is allowed, its docstring says what it means and in which unit (and is its
`--help`). Rules that tie fields of one component together live in that component's `__post_init__`; rules that need
the network or the machine live in `runtime/preflight.py`. Nothing here imports torch or Ray, so that a typing
mistake is answered at once.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from raydream.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]

SHARE_OF_NODE = 0.001
"""of a node's custom resource that a process asks for: enough for it to be placed there, and for a thousand others"""

Device = Literal["auto", "cpu", "cuda", "mps"]
Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]

_strict = ConfigDict(extra="forbid", validate_default=True)


@dataclass(frozen=True, config=_strict)
class TeacherConfig:
    """The trained network that is inverted."""

    network: str = "digits"
    """a network of this project by name, torchvision:NAME, timm:NAME, `package.module:factory` for one's own, or
    run:DIR for the network that a run trained"""
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """keyword arguments for the network's factory"""
    checkpoint: str | None = None
    """path or URL of its weights (.safetensors, or a state dict that torch.save wrote); for torchvision: also the name
    of published weights (IMAGENET1K_V1, DEFAULT), for timm: the word pretrained; null: train it on `data`"""
    input_shape: tuple[Count, Count, Count] = (1, 8, 8)
    """channels, height, width (pixels)"""
    mean: tuple[float, ...] = (0.3,)
    """per channel, of pixel values in [0, 1]; the network sees (pixels - mean) / std"""
    std: tuple[Positive, ...] = (0.35,)
    """per channel, of pixel values in [0, 1]"""
    classes: Annotated[int, Field(ge=2)] = 10
    """number of classes"""

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.input_shape[0]:
                raise InputError(
                    f"teacher.{name}",
                    values,
                    f"{self.input_shape[0]} numbers, one per channel of teacher.input_shape",
                    "give one value for each channel",
                )


@dataclass(frozen=True, config=_strict)
class TrainingConfig:
    """Supervised training of a teacher on real data."""

    epochs: Count = 30
    """passes over the training split"""
    batch_size: Count = 64
    """real images per step"""
    learning_rate: Positive = 0.01
    """peak of a one-cycle schedule, AdamW"""
    weight_decay: NonNegative = 0.01
    """decoupled weight decay"""
    shift: NonNegativeInt = 1
    """random shift of each image, up to so many pixels"""
    seed: NonNegativeInt = 0
    """of the weights and the order; apart from the run's seed, so that runs of many seeds share a teacher"""
    library: str = "runs/teachers"
    """folder where trained teachers are kept, to be found again by the fingerprint of all that made them"""


@dataclass(frozen=True, config=_strict)
class DataConfig:
    """Real data: for training a teacher and for measuring; students never see any."""

    name: Literal["digits", "none"] = "digits"
    """digits: scikit-learn's handwritten digits; none: nothing to measure on"""


@dataclass(frozen=True, config=_strict)
class CoefficientsConfig:
    """Weights of the terms of the objective; a synthesizer uses those of its method."""

    classification: NonNegative = 1.0
    """weight of the cross-entropy with the targets (eq. 2; the paper: 1)"""
    tv: NonNegative = 2.5e-5
    """alpha_tv, weight of the total variation (eq. 3; the paper for CIFAR-10: 2.5e-5)"""
    tv_l1: NonNegative = 0.0
    """weight of the total variation's other form, means of absolute differences (the published code has both)"""
    l2: NonNegative = 3e-8
    """alpha_l2, weight of the norm of the whole batch (eq. 3; the paper for CIFAR-10: 3e-8)"""
    l2_per_image: NonNegative = 0.0
    """weight of the mean norm of single images (the published ImageNet code's form of l2)"""
    feature: NonNegative = 10.0
    """alpha_f, weight of the feature statistics (eq. 4-5; the paper for CIFAR-10: 1 to 100)"""
    competition: NonNegative = 10.0
    """alpha_c, weight of the competition with the student (eq. 8-9; the paper for CIFAR-10: 10)"""


@dataclass(frozen=True, config=_strict)
class TargetsConfig:
    """Which classes the images are to show."""

    rule: Literal["balanced", "random", "listed", "weighted"] = "balanced"
    """balanced: all classes in turn; random: each as likely; listed: those of `classes` in turn; weighted: each as
    likely as `weights` say"""
    classes: tuple[NonNegativeInt, ...] = ()
    """for listed: class indices, gone through again and again"""
    weights: tuple[NonNegative, ...] = ()
    """for weighted: one number per class, relative to each other"""

    def __post_init__(self) -> None:
        for name, rule in (("classes", "listed"), ("weights", "weighted")):
            if bool(getattr(self, name)) != (self.rule == rule):
                allowed = f"given with synthesis.targets.rule {rule}, and with no other"
                remedy = "give both or neither"
                raise InputError(f"synthesis.targets.{name}", list(getattr(self, name)), allowed, remedy)
        if self.rule == "weighted" and not any(self.weights):
            raise InputError("synthesis.targets.weights", list(self.weights), "> 0 for one class at least", "raise one")


@dataclass(frozen=True, config=_strict)
class StageConfig:
    """One stage of a multi-resolution inversion; what is null is as `synthesis` says."""

    size: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]] | None = None
    """height and width of the images in this stage; null: the teacher's"""
    iterations: Count | None = None
    """updates of the pixels"""
    learning_rate: Positive | None = None
    """of Adam, which starts afresh in each stage"""
    betas: Betas | None = None
    """decay rates of Adam's two moments"""
    jitter: NonNegativeInt | None = None
    """pixels"""
    upsampling: Literal["nearest", "bilinear", "bicubic"] = "nearest"
    """how the images of the stage before become this one's (the paper: nearest)"""


@dataclass(frozen=True, config=_strict)
class SynthesisConfig:
    """How a batch of images is made."""

    method: Literal["noise", "deepdream", "deep_inversion", "adaptive"] = "adaptive"
    """noise: class loss alone; deepdream: adds the image prior; deep_inversion: adds feature statistics; adaptive:
    adds competition with the student"""
    batch_size: Count = 256
    """images made at once (the paper: 256); the total variation and the feature statistics are of the whole batch"""
    chunk_size: Count | None = None
    """images that pass through the networks at once, where a batch is larger than memory: the same result in two
    passes; null: the batch, halved as often as memory runs out"""
    targets: TargetsConfig = Field(default_factory=TargetsConfig)
    iterations: Count = 2000
    """updates of the pixels per batch (the paper: 2,000)"""
    learning_rate: Positive = 0.05
    """of Adam on the pixels, after normalisation (the paper: 0.05)"""
    betas: Betas = (0.9, 0.999)
    """decay rates of Adam's two moments"""
    decay: Literal["constant", "cosine"] = "constant"
    """of the learning rate over a stage's updates (the paper for CIFAR-10: constant)"""
    warm_up: NonNegativeInt = 0
    """updates over which the learning rate rises from 0, in each stage (the published ImageNet code: 100)"""
    jitter: NonNegativeInt = 2
    """each update sees the images rolled by up to so many pixels (the published code: 2)"""
    flip: bool = False
    """each update sees the images mirrored half of the time; never for digits or text"""
    clip: bool = True
    """keep pixels in the range that [0, 1] becomes after normalisation"""
    stages: tuple[StageConfig, ...] = ()
    """resolutions to go through, each with what differs from the settings above; none: one stage at the teacher's"""
    start: Literal["noise", "images"] = "noise"
    """adaptive rounds start from N(0, 1), or from images already made"""
    first_bn: NonNegative = 1.0
    """multiplier of the first BN layer's feature distance (the published code: 1 for CIFAR-10, 10 for ImageNet)"""
    competition_temperature: Positive = 3.0
    """temperature of both networks in the competition (the published code: 3)"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """of the networks' arithmetic (autocast); auto: bf16 where the hardware computes in it, fp32 elsewhere; pixels,
    statistics and losses are always fp32"""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: where a batch takes long enough to pay for compiling; without a compiler it runs uncompiled
    and says so"""
    coefficients: CoefficientsConfig = Field(default_factory=CoefficientsConfig)

    def __post_init__(self) -> None:
        terms = {"noise": ["classification"], "deepdream": ["classification", "tv", "tv_l1", "l2", "l2_per_image"]}
        own = terms.get(self.method, [*terms["deepdream"], "feature"])
        if not any(getattr(self.coefficients, name) for name in own):
            raise InputError(
                "synthesis.coefficients",
                0.0,
                f"> 0 for at least one of {', '.join(own)} (method {self.method})",
                "with nothing to minimise the images stay noise",
            )
        if self.stages and self.stages[-1].size is not None:
            allowed = "null in the last stage, which is at the teacher's resolution"
            raise InputError("synthesis.stages.size", self.stages[-1].size, allowed, "leave it out there")

    @property
    def competes(self) -> bool:
        """Whether images are made against a snapshot of the student."""
        return self.method == "adaptive" and self.coefficients.competition > 0


@dataclass(frozen=True, config=_strict)
class ViewConfig:
    """The random view of the images that teacher and student both see in a step; drawn for each image apart."""

    shift: NonNegativeInt = 1
    """up to so many pixels each way; black moves in"""
    flip: bool = False
    """mirrored left to right half of the time; never for digits or text"""
    zoom: Share = 0.0
    """enlarged or reduced by up to this share of its size"""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """up to so many degrees each way"""
    brightness: NonNegative = 0.0
    """up to so much added or taken away, in standard deviations (after normalisation)"""
    contrast: Share = 0.0
    """values after normalisation times 1 plus or minus up to this"""
    cutout: NonNegativeInt = 0
    """side in pixels of a square somewhere that is replaced by the mean"""
    mixup: NonNegative = 0.0
    """alpha of MixUp's Beta distribution; 0: none"""


@dataclass(frozen=True, config=_strict)
class StudentConfig:
    """The network that learns, and how it is distilled."""

    network: str = "digits"
    """a network of this project by name, torchvision:NAME, timm:NAME, or `package.module:factory` for one's own"""
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """keyword arguments for the network's factory"""
    batch_size: Count = 256
    """images per distillation step, over all workers (the paper: 256)"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: momentum 0.9 with Nesterov; adamw"""
    learning_rate: Positive = 0.1
    """at the start of the schedule"""
    weight_decay: NonNegative = 5e-4
    """L2 for sgd, decoupled for adamw"""
    decay: Literal["constant", "cosine"] = "cosine"
    """of the learning rate over all distillation steps"""
    temperature: Positive = 3.0
    """T of eq. 1 (the paper's section 4.4: 3)"""
    view: ViewConfig = Field(default_factory=ViewConfig)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of both networks' arithmetic (autocast), as in synthesis.precision; weights are always fp32"""
    workers: Count = 1
    """Ray Train workers (DDP)"""
    min_workers: Count | None = None
    """how few of them are enough: a student goes on with fewer where there is room for no more, and takes the others in
    when a round ends (some 10 s each time); None: all of them"""
    cpus: Positive = 0.5
    """CPUs that each worker reserves; it computes with max(1, cpus) threads"""
    gpus: NonNegative = 0.0
    """GPUs that each worker reserves; fractions share one"""
    node_resource: Name | None = None
    """a custom resource of Ray's that nodes for the student offer (on-demand ones, say); null: any node"""

    def __post_init__(self) -> None:
        if self.batch_size % self.workers:
            raise InputError(
                "student.workers",
                self.workers,
                f"a divisor of student.batch_size ({self.batch_size})",
                "each step's images are split evenly among the workers, so change one of the two",
            )
        if self.min_workers is not None and self.min_workers > self.workers:
            allowed = f"at most student.workers ({self.workers})"
            raise InputError("student.min_workers", self.min_workers, allowed, "lower it, or ask for more workers")

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for each worker."""
        return _resources(self)

    @property
    def worker_counts(self) -> list[int]:
        """With how many workers a student may train, the most first: those that split its batch evenly."""
        fewest = self.workers if self.min_workers is None else self.min_workers
        return [count for count in range(self.workers, fewest - 1, -1) if self.batch_size % count == 0]


@dataclass(frozen=True, config=_strict)
class GeneratorsConfig:
    """The actors that run the synthesizer."""

    count: Count = 2
    """generator actors that are wanted; those for which there is no room yet join later"""
    min: Count = 1
    """how few of them are enough to begin"""
    cpus: Positive = 0.5
    """CPUs that each reserves; it computes with max(1, cpus) threads"""
    gpus: NonNegative = 0.0
    """GPUs that each reserves; fractions share one"""
    node_resource: Name | None = None
    """a custom resource of Ray's that nodes for generators offer (spot ones, say); null: any node"""
    patience_s: Positive = 600.0
    """seconds without any progress of a batch (an update, or compiling) after which its generator is taken for hung
    and replaced"""

    def __post_init__(self) -> None:
        if self.min > self.count:
            allowed = f"at most generators.count ({self.count})"
            raise InputError("generators.min", self.min, allowed, "lower it, or ask for more generators")

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for each generator."""
        return _resources(self)


def _resources(each: StudentConfig | GeneratorsConfig) -> dict[str, float]:
    wanted = {"CPU": each.cpus, "GPU": each.gpus, each.node_resource or "": SHARE_OF_NODE}
    return {name: amount for name, amount in wanted.items() if name and amount}


@dataclass(frozen=True, config=_strict)
class BufferConfig:
    """What ties making images to learning from them."""

    samples_per_insert: Positive = 50.0
    """how often an image is drawn, on average, for each that joins (the paper: 50 steps of 256 per 256 made)"""
    error_bound: Positive | None = None
    """samples by which drawing may run ahead of or behind that ratio; null: one round's worth (ignored in lockstep)"""
    block_steps: Count = 5
    """distillation steps whose images a worker asks for in one call"""
    memory_mb: Positive | None = None
    """images kept in Ray's object store, in MiB; of the rest the shards are read; null: half of the smallest node's"""
    stall_timeout_s: Positive = 1800.0
    """seconds without any new image or snapshot after which a wait gives up"""


@dataclass(frozen=True, config=_strict)
class RoundsConfig:
    """Rounds: the student trains on the buffer, generators make batches against its snapshot, the batches join."""

    initial_batches: Count = 4
    """batches made before the student starts (DeepInversion where the method is adaptive)"""
    count: NonNegativeInt = 4
    """rounds after that"""
    batches: Count = 2
    """batches made per round"""
    final_steps: NonNegativeInt = 500
    """distillation steps after the last batch has joined"""
    snapshot_steps: Count | None = None
    """steps between two snapshots of the student; null: one a round"""
    lockstep: bool = False
    """alternate strictly between making and learning: reproducible bit for bit, and slower"""

    def __post_init__(self) -> None:
        if self.count == 0 and self.final_steps == 0:
            raise InputError(
                "rounds.final_steps", 0, ">= 1 where rounds.count is 0", "give the student steps to learn in"
            )
        if self.lockstep and self.snapshot_steps is not None:
            raise InputError(
                "rounds.snapshot_steps",
                self.snapshot_steps,
                "null in lockstep, where every round ends with one snapshot",
                "leave it out, or set rounds.lockstep to false",
            )


@dataclass(frozen=True, config=_strict)
class TeacherJobConfig:
    """Train a teacher on real data."""

    experiment: Name = "teacher"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    data: DataConfig = Field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if self.data.name == "none":
            raise InputError("data.name", "none", "a data set", "a teacher is trained on real data: name some")
        if self.teacher.checkpoint is not None:
            remedy = "this job trains a network from scratch: leave it out"
            raise InputError("teacher.checkpoint", self.teacher.checkpoint, "null", remedy)


@dataclass(frozen=True, config=_strict)
class DistillConfig:
    """One experiment: invert a teacher, and distil a student from the images."""

    experiment: Name = "experiment"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    seed: NonNegativeInt = 0
    """run seed, from which all others are derived"""
    device: Device = "auto"
    """what networks compute on; auto: cuda where a process reserves a GPU, else mps where there is one, else cpu"""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    student: StudentConfig = Field(default_factory=StudentConfig)
    generators: GeneratorsConfig = Field(default_factory=GeneratorsConfig)
    buffer: BufferConfig = Field(default_factory=BufferConfig)
    rounds: RoundsConfig = Field(default_factory=RoundsConfig)
    autoscaling: bool = False
    """the cluster that is joined can grow: ask it for what it has no room for, and wait for that half an hour"""

    def __post_init__(self) -> None:
        _check_source(self.teacher, self.data)


@dataclass(frozen=True, config=_strict)
class SynthesizeConfig:
    """Invert a teacher into a data set of images."""

    experiment: Name = "images"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    seed: NonNegativeInt = 0
    """run seed, from which all others are derived"""
    device: Device = "auto"
    """what networks compute on; auto: cuda where a generator reserves a GPU, else mps where there is one, else cpu"""
    images: Count | None = None
    """how many to make, in batches as even as they can be, of at most synthesis.batch_size; null: 256"""
    start_from: str | None = None
    """folder of a run whose images to start from, instead of N(0, 1): batch by batch, with the targets they have"""
    png: bool = False
    """also write the images as png/<target>/<batch>-<row>.png, as torchvision's ImageFolder reads them"""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    synthesis: SynthesisConfig = Field(default_factory=lambda: SynthesisConfig(method="deep_inversion"))
    generators: GeneratorsConfig = Field(default_factory=GeneratorsConfig)
    autoscaling: bool = False
    """the cluster that is joined can grow: ask it for what it has no room for, and wait for that half an hour"""

    def __post_init__(self) -> None:
        _check_source(self.teacher, self.data)
        if self.synthesis.method == "adaptive":
            allowed = "noise, deepdream or deep_inversion"
            remedy = "adaptive needs a student to compete with, which jobs/distill.py trains"
            raise InputError("synthesis.method", "adaptive", allowed, remedy)
        if self.synthesis.start == "images":
            raise InputError("synthesis.start", "images", "noise", "name a run in start_from instead")
        if self.start_from is not None and self.images is not None:
            remedy = "all images of that run are started from: leave one of the two out"
            raise InputError("images", self.images, "null beside start_from", remedy)


@dataclass(frozen=True, config=_strict)
class EvaluateConfig:
    """Let other networks classify the images of a run."""

    experiment: Name = "evaluation"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    images: str = ""
    """folder of a run that has images"""
    verifiers: str | tuple[TeacherConfig, ...] = ()
    """independent networks, each described as a teacher is; or, between commas, NETWORK=CHECKPOINT for one with the
    input and the classes of the run's teacher, and run:DIR for the network that a run trained"""
    device: Device = "auto"
    """what the networks compute on; auto: cuda or mps where there is one, else cpu"""

    def __post_init__(self) -> None:
        if not self.images:
            raise InputError("images", self.images, "the folder of a run that has images", "give it as --images DIR")


def _check_source(teacher: TeacherConfig, data: DataConfig) -> None:
    if teacher.checkpoint is None and data.name == "none":
        raise InputError(
            "teacher.checkpoint",
            None,
            "the path of a checkpoint where data.name is none",
            "name the teacher's weights, or a data set to train it on",
        )
