"""The teacher, how one is trained, and the real data that it takes."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, NonNegative, NonNegativeInt, Positive
from raydream.errors import InputError


@dataclass(frozen=True, config=STRICT)
class TeacherConfig:
    """The trained network that is inverted."""

    network: str = "digits"
    """a network of this project by name, torchvision:NAME, timm:NAME, `package.module:factory` for one's own, or
    run:DIR for the network that a run trained; where a student is trained on finished images: also images, for the
    teacher that these are of"""
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


@dataclass(frozen=True, config=STRICT)
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


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Real data: for training a teacher and for measuring; students never see any."""

    name: Literal["digits", "none"] = "digits"
    """digits: scikit-learn's handwritten digits; none: nothing to measure on"""
