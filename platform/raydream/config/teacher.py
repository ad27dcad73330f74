"""Settings of the teacher, of its training, and of real data."""

import re
import shlex
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, WrapValidator
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Arguments, Count, NonNegative, NonNegativeInt, Positive, Share
from raydream.errors import InputError

TORCHVISION = "torchvision:"
"""prefix of the names of torchvision's networks and data sets"""
CHECKSUM = "#sha256="
"""separator between the URL of a file and its checksum"""
ON_THE_WEB = re.compile(r"https?://", re.IGNORECASE)
"""prefix of a URL that is downloaded; those of stores (s3://, ...) are read in place"""
WITH_CHECKSUM = re.compile(rf"https?://[!-\"$-~]+{CHECKSUM}[0-9a-f]{{64}}", re.IGNORECASE)


@dataclass(frozen=True, config=STRICT)
class TeacherConfig:
    """The trained network that is inverted."""

    network: str = "digits"
    """a network of this project by name, torchvision:NAME, timm:NAME, `package.module:factory` for a user's own, or
    run:DIR for the network that a run trained; where a student is trained on finished images: also the word images, for
    their teacher"""
    arguments: Arguments = Field(default_factory=dict)
    """keyword arguments for the network's factory: text, numbers, lists, dictionaries, null, such as
    {width: 8, kernel: [5, 5]}; a list becomes a tuple where the factory declares one"""
    checkpoint: str | None = None
    """path or URL of its weights (.safetensors, or a state dict that torch.save wrote); https://...#sha256=CHECKSUM is
    downloaded once into a cache; for torchvision: also the name of published weights (IMAGENET1K_V1, DEFAULT), for
    timm: the word pretrained; null: train it on `data`"""
    statistics: str = ""
    """for networks without batch normalization: a few hundred unlabeled or other images (a folder of pictures, .parquet
    or .npz, resized where they are of another size), of which the driver keeps means and variances at the inputs of the
    normalization layers, as BN does of its training data; no process that makes or learns from images sees these
    images; empty: none"""
    input_shape: tuple[Count, Count, Count] = (1, 8, 8)
    """channels, height, width (pixels)"""
    mean: tuple[float, ...] = (0.3,)
    """mean per channel, of pixel values in [0, 1]; the network sees (pixels - mean) / std"""
    std: tuple[Positive, ...] = (0.35,)
    """standard deviation per channel, of pixel values in [0, 1]"""
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
        if self.checkpoint is not None:
            _check_url(self.checkpoint)

    def check_unobserved(self) -> None:
        """Raise InputError where statistics are to be gathered for a job that changes the network."""
        if self.statistics:
            remedy = "they are for making images: raydream synthesize or distill"
            raise InputError("teacher.statistics", self.statistics, "empty with this job", remedy)


def _check_url(checkpoint: str) -> None:
    """Raise InputError for a URL to download from without a checksum, or another URL with one."""
    url, checksum, _ = checkpoint.partition(CHECKSUM)
    if ON_THE_WEB.match(checkpoint):
        if not WITH_CHECKSUM.fullmatch(checkpoint):
            allowed = f"a URL that ends in {CHECKSUM} and the 64 digits of the file's checksum"
            remedy = f"append what this prints: curl -fL {shlex.quote(url.partition('#')[0])} | sha256sum"
            raise InputError("teacher.checkpoint", checkpoint, allowed, remedy)
    elif checksum and "://" in url:
        allowed = f"an https or http URL where {CHECKSUM} follows"
        raise InputError("teacher.checkpoint", checkpoint, allowed, "name other files by their path or URL alone")


def _weights(given: Any, validated: Callable[[Any], Any]) -> Any:
    try:
        return validated(given)
    except ValidationError as error:  # which would name a kind of value that the user did not mean
        allowed = "balanced, none, or numbers > 0, one for each class"
        raise InputError("training.class_weights", given, allowed, "name them as [1.0, 2.5, ...]") from error


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """Supervised training of a teacher on real data."""

    epochs: Count = 30
    """number of passes over the training split"""
    batch_size: Count = 64
    """number of real images per step"""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw; sgd: momentum 0.9 with Nesterov"""
    learning_rate: Positive = 0.01
    """peak learning rate"""
    decay: Literal["one_cycle", "cosine"] = "one_cycle"
    """schedule of the learning rate; one_cycle: it rises over 30 % of the steps, as momentum falls, and then falls to
    almost 0; cosine: it rises over warm_up steps, and then falls to 0"""
    warm_up: NonNegativeInt = 0
    """for cosine: steps over which the learning rate rises from 0"""
    weight_decay: NonNegative = 0.01
    """weight decay: decoupled for adamw, L2 for sgd"""
    clip_norm: Positive | None = None
    """largest norm of the gradient of all weights; a longer one is scaled down; null: no limit"""
    ema: Share = 0.0
    """weight of the past in an exponential moving average of the weights (and BN statistics), such as 0.999; this
    average is then measured and saved; the weight is smaller in the first steps; 0: none"""
    label_smoothing: Share = 0.0
    """share of each label that is spread evenly over all classes"""
    class_weights: Annotated[Literal["balanced"] | tuple[Positive, ...], WrapValidator(_weights)] = ()
    """weight of each class in the loss, in the order of the network's outputs; balanced: inverse to its number of
    images; none: all alike"""
    shift: NonNegativeInt = 1
    """largest random shift of each image, in pixels: a random crop of the image with a black border this wide"""
    flip: bool = False
    """mirror half of the images left to right; never for digits or text"""
    zoom: Share = 0.0
    """largest random enlargement or reduction, as a share of the size"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """precision of the network's arithmetic (autocast); auto: bf16 where the device has instructions for it; weights
    are always fp32"""
    seed: NonNegativeInt = 0
    """seed of the weights and the order; separate from the run's seed, so that runs of many seeds share a teacher"""
    library: str = "runs/teachers"
    """folder of trained teachers, reused by the fingerprint of their whole recipe"""

    def __post_init__(self) -> None:
        if self.warm_up and self.decay == "one_cycle":
            remedy = "one_cycle rises over 30 % of the steps: leave it out, or set training.decay to cosine"
            raise InputError("training.warm_up", self.warm_up, "0 with one_cycle", remedy)

    def check_classes(self, classes: int) -> None:
        """Raise InputError where the weights of classes are not one for each class of a network."""
        if self.class_weights and self.class_weights != "balanced" and len(self.class_weights) != classes:
            allowed = f"balanced, none, or {classes} numbers, one for each class, as teacher.classes says"
            raise InputError("training.class_weights", list(self.class_weights), allowed, "name one for each")


def _known(name: str) -> str:
    if name not in ("digits", "files", "images", "none") and not name.startswith(TORCHVISION):
        allowed = "digits, files, torchvision:NAME or none"
        raise InputError("data.name", name, allowed, "put other data into files, and name these")
    return name


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Real data: for training a teacher, validation, and measuring; no student learns from them."""

    name: Annotated[str, AfterValidator(_known)] = "digits"
    """digits: scikit-learn's handwritten digits; files: those named below; torchvision:NAME: a data set of
    torchvision's in `folder`, such as torchvision:CIFAR10; none: no real data; images: where another run's images are
    named, the data that run was measured on, else digits"""
    train: str | None = None
    """for files: path or URL of the labeled images that a teacher is trained on: a .parquet file or a folder of these
    (a picture's bytes or pixel values in a column image, img, jpeg or png; the class in label), an .npz file (x: uint8
    [N,H,W,C], y: [N]), or a folder with a folder of pictures for each class; null: none are needed"""
    validation: str | None = None
    """for files: the same, for validation; null: a share of another set, which then lacks it"""
    test: str | None = None
    """for files: the same, only for the final test"""
    folder: str | None = None
    """for torchvision:NAME: its folder; null: in the cache, where `download` is set"""
    download: bool = False
    """for torchvision:NAME: whether torchvision may download what is missing in `folder`"""
    validation_of: Literal["train", "test"] = "train"
    """the set that the validation split is a share of where no file is named for it"""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """size of that share; its images are the same in all runs"""
    classes: tuple[NonNegativeInt, ...] = ()
    """the classes to use, in the order of the network's outputs; none: all, by their own numbers"""
    resize: bool = False
    """whether pictures of another size are scaled to the network's input, and gray and colored ones converted"""

    def __post_init__(self) -> None:
        if twice := [each for index, each in enumerate(self.classes) if each in self.classes[:index]]:
            raise InputError("data.classes", list(self.classes), "each class once", f"{twice[0]} is named twice")
        for field in ("train", "validation", "test", "folder"):
            of = "torchvision:NAME" if field == "folder" else "files"
            belongs = bool(self.torchvision) if field == "folder" else self.name == "files"
            if getattr(self, field) is not None and not belongs:
                allowed = f"null where data.name is {self.name}"
                raise InputError(f"data.{field}", getattr(self, field), allowed, f"leave it out, or say {of}")
        if self.torchvision and self.folder is None and not self.download:
            remedy = "name it, or set data.download to true for one that is downloaded into the cache"
            raise InputError("data.folder", None, "the folder where torchvision's data set lies", remedy)
        if self.name == "files" and self.test is None:
            raise InputError("data.test", None, "a file or a folder where data.name is files", "name what to report on")
        if self.name == "files" and self.validation is None and getattr(self, self.validation_of) is None:
            allowed = "a file or a folder where data.train is not named"
            remedy = "name it, or set data.validation_of to test for a share of that, which is then not reported on"
            raise InputError("data.validation", None, allowed, remedy)

    @property
    def torchvision(self) -> str:
        """The name of torchvision's data set; empty for another one."""
        return self.name.removeprefix(TORCHVISION) if self.name.startswith(TORCHVISION) else ""

    @property
    def has_own_validation(self) -> bool:
        """Return whether the validation split is separate from the other sets."""
        return self.validation is not None
