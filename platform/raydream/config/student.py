"""The student, and what it sees of the images."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import (
    STRICT,
    Arguments,
    Count,
    Name,
    NonNegative,
    NonNegativeInt,
    Positive,
    Share,
    reserved,
)
from raydream.errors import InputError


@dataclass(frozen=True, config=STRICT)
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
    """up to so much added or taken away, in units of 0.225 of the pixels' range"""
    contrast: Share = 0.0
    """differences from the mean times 1 plus or minus up to this"""
    cutout: NonNegativeInt = 0
    """side in pixels of a square somewhere that is replaced by the mean"""
    mixup: NonNegative = 0.0
    """alpha of MixUp's Beta distribution; 0: none"""


@dataclass(frozen=True, config=STRICT)
class StudentConfig:
    """The network that learns, and how it is distilled."""

    network: str = "digits"
    """a network of this project by name, torchvision:NAME, timm:NAME, or `package.module:factory` for one's own"""
    arguments: Arguments = Field(default_factory=dict)
    """keyword arguments for the network's factory: text, numbers, lists, dictionaries, null, such as
    {width: 8, kernel: [5, 5]}; a list becomes a tuple where the factory declares one"""
    batch_size: Count = 256
    """images per distillation step, over all workers (the paper: 256)"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: momentum 0.9 with Nesterov; adamw"""
    learning_rate: Positive = 0.1
    """at the start of the schedule"""
    weight_decay: NonNegative = 5e-4
    """L2 for sgd, decoupled for adamw"""
    warm_up: NonNegativeInt = 0
    """distillation steps over which the learning rate rises from 0"""
    decay: Literal["constant", "cosine", "step"] = "cosine"
    """of the learning rate after that; cosine: to 0; step: times step_factor at each of the milestones"""
    milestones: tuple[Share, ...] = (0.5, 0.75)
    """for step: shares of all distillation steps"""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """for step: what the learning rate is multiplied with"""
    clip_norm: Positive | None = 5.0
    """the gradient of all weights together is scaled down to this norm where it is longer, which lets shallow networks
    begin at the learning rate of deep ones; null: it is left alone (the paper)"""
    ema: Share = 0.0
    """weight of what was before in an exponential moving average of the weights (and BN statistics), such as 0.999,
    which is then what is measured, saved and competed with; less in the first steps, when all is new; 0: none"""
    temperature: Positive = 3.0
    """T of eq. 1 (the paper's section 4.4: 3)"""
    view: ViewConfig = Field(default_factory=ViewConfig)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of both networks' arithmetic (autocast), as in synthesis.precision; weights are always fp32"""
    workers: Count = 1
    """processes that train it together: Ray Train workers (DDP), where there are several"""
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
        return reserved(self.cpus, self.gpus, self.node_resource)

    @property
    def worker_counts(self) -> list[int]:
        """With how many workers a student may train, the most first: those that split its batch evenly."""
        fewest = self.workers if self.min_workers is None else self.min_workers
        return [count for count in range(self.workers, fewest - 1, -1) if self.batch_size % count == 0]
