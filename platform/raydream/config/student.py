"""Settings of the student, and of its view of the images."""

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
    """The random view of the images that teacher and student both see in a step; drawn for each image separately."""

    shift: NonNegativeInt = 1
    """largest shift in pixels, in each direction; the border is black"""
    flip: bool = False
    """mirror half of the images left to right; never for digits or text"""
    zoom: Share = 0.0
    """largest enlargement or reduction, as a share of the size"""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """largest rotation in degrees, in each direction"""
    brightness: NonNegative = 0.0
    """largest change of brightness, in units of 0.225 of the pixels' range"""
    contrast: Share = 0.0
    """largest change of contrast: differences from the mean are scaled by up to 1 plus or minus this"""
    cutout: NonNegativeInt = 0
    """side in pixels of a randomly placed square that is replaced by the mean"""
    mixup: NonNegative = 0.0
    """alpha of MixUp's Beta distribution; 0: none"""


@dataclass(frozen=True, config=STRICT)
class StudentConfig:
    """The network that learns, and how it is distilled."""

    network: str = "digits"
    """a network of this project by name, torchvision:NAME, timm:NAME, or `package.module:factory` for a user's own"""
    arguments: Arguments = Field(default_factory=dict)
    """keyword arguments for the network's factory: text, numbers, lists, dictionaries, null, such as
    {width: 8, kernel: [5, 5]}; a list becomes a tuple where the factory declares one"""
    batch_size: Count = 256
    """images per distillation step, over all workers (the paper: 256)"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: momentum 0.9 with Nesterov; adamw"""
    learning_rate: Positive = 0.1
    """learning rate at the start of the schedule"""
    weight_decay: NonNegative = 5e-4
    """weight decay: L2 for sgd, decoupled for adamw"""
    warm_up: NonNegativeInt = 0
    """distillation steps over which the learning rate rises from 0"""
    decay: Literal["constant", "cosine", "step"] = "cosine"
    """decay of the learning rate after that; cosine: to 0; step: times step_factor at each of the milestones"""
    milestones: tuple[Share, ...] = (0.5, 0.75)
    """for step: milestones as shares of all distillation steps"""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """for step: factor on the learning rate at each milestone"""
    clip_norm: Positive | None = 5.0
    """largest norm of the gradient of all weights; a longer one is scaled down, which lets shallow networks start at
    the learning rate of deep ones; null: no limit (the paper)"""
    ema: Share = 0.0
    """weight of the past in an exponential moving average of the weights (and BN statistics), such as 0.999; this
    average is then measured, saved and competed with; the weight is smaller in the first steps; 0: none"""
    temperature: Positive = 3.0
    """T of eq. 1 (the paper's section 4.4: 3)"""
    view: ViewConfig = Field(default_factory=ViewConfig)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """precision of both networks' arithmetic (autocast), as in synthesis.precision; weights are always fp32"""
    workers: Count = 1
    """number of processes that train it together: Ray Train workers (DDP) where there are several"""
    min_workers: Count | None = None
    """smallest number of workers: a student continues with fewer where resources are short, and adds the others when a
    round ends (about 10 s each time); null: all of them"""
    cpus: Positive = 0.5
    """CPUs that each worker reserves; it computes with max(1, cpus) threads"""
    gpus: NonNegative = 0.0
    """GPUs that each worker reserves; fractions share one"""
    node_resource: Name | None = None
    """custom Ray resource of the nodes for the student (on-demand nodes, say); null: any node"""

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
        """The resources that Ray reserves for each worker."""
        return reserved(self.cpus, self.gpus, self.node_resource)

    @property
    def worker_counts(self) -> list[int]:
        """The allowed numbers of workers, largest first: those that split the batch evenly."""
        fewest = self.workers if self.min_workers is None else self.min_workers
        return [count for count in range(self.workers, fewest - 1, -1) if self.batch_size % count == 0]
