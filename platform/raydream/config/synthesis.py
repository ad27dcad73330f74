"""Settings of the synthesis of a batch of images."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Betas, Count, NonNegative, NonNegativeInt, Positive, Share
from raydream.errors import InputError


class SynthesisMethod(NamedTuple):
    """The description of a synthesizer, without torch.

    Attributes:
        synthesizer: its class, as `module:name` in `raydream.synthesis`.
        terms: names of the terms of its objective, keys of `raydream.losses.objective.TERMS` and of
            `CoefficientsConfig`; those in `ADVERSARIES` are left out where a batch has no student.
        learns: whether something is learned from batch to batch, which makes a batch depend on the one before it.
        without_student: the equivalent method without competition, where it has a separate name.
        generator_betas: decay rates of Adam's two moments on its generator network, as its paper has them.
        embeds: whether an embedding conditions its generator network on the class.
    """

    synthesizer: str
    terms: tuple[str, ...]
    learns: bool = False
    without_student: str | None = None
    generator_betas: tuple[float, float] = (0.9, 0.999)
    embeds: bool = False

    @property
    def competes(self) -> bool:
        """Return whether its objective compares the teacher with a student, unless that term's coefficient is 0."""
        return any(name in self.terms for name in ADVERSARIES)


ADVERSARIES = ("competition", "masked_kl")
"""the terms that compare the teacher with a student; they are left out where a batch has no student"""

_PRIOR = ("tv", "tv_l1", "l2", "l2_per_image")

METHODS: dict[str, SynthesisMethod] = {
    # min over x of CE(x, y): the teacher is confident, but images look like noise (the paper's baseline "L only")
    "noise": SynthesisMethod("inversion:Inversion", ("classification",)),
    # CE(x, y) + R_prior(x) (section 3.1, eq. 2-3; Mordvintsev et al. 2015)
    "deepdream": SynthesisMethod("inversion:Inversion", ("classification", *_PRIOR)),
    # CE(x, y) + R_prior(x) + alpha_f R_feature(x) (section 3.2, eq. 4-7)
    "deep_inversion": SynthesisMethod("inversion:Inversion", ("classification", *_PRIOR, "feature")),
    # CE(x, y) + R_DI(x) + alpha_c (1 - JS(p_T(x), p_S(x))) (section 3.3, eq. 8-9)
    "adaptive": SynthesisMethod(
        "inversion:Inversion",
        ("classification", *_PRIOR, "feature", "competition"),
        without_student="deep_inversion",
    ),
    # Chen et al., ICCV 2019
    "dafl": SynthesisMethod("dafl:DAFL", ("one_hot", "activation", "information_entropy"), learns=True),
    # after Fang et al., AAAI 2022
    "fast": SynthesisMethod(
        "fast:Fast", ("classification", "feature", "masked_kl"), learns=True, generator_betas=(0.5, 0.999)
    ),
    # after Tran et al., CVPR 2024
    "noisy": SynthesisMethod(
        "noisy:Noisy",
        ("classification", "feature", "masked_kl"),
        learns=True,
        generator_betas=(0.5, 0.999),
        embeds=True,
    ),
}
"""all synthesizers, by the names that `synthesis.method` takes; all other code that depends on a method reads this
table"""

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]


def one_of(methods: Sequence[str]) -> str:
    """Join the names of methods for a sentence: "a, b or c"."""
    return " or ".join(part for part in (", ".join(methods[:-1]), *methods[-1:]) if part)


AUTO = "auto"
"""a coefficient that follows from the teacher: `raydream.synthesis.balance` replaces it by a number"""

if TYPE_CHECKING:
    Balanced = float
else:
    Balanced = NonNegative | Literal["auto"]


@dataclass(frozen=True, config=STRICT)
class CoefficientsConfig:
    """Weights of the terms of the objective; a synthesizer uses those of its method."""

    classification: NonNegative = 1.0
    """weight of the cross-entropy with the targets (eq. 2; the paper: 1)"""
    tv: Balanced = 2.5e-5
    """alpha_tv, weight of the total variation (eq. 3; the paper for CIFAR-10: 2.5e-5); auto: as for feature"""
    tv_l1: NonNegative = 0.0
    """weight of the total variation's other form, means of absolute differences (the published code has both)"""
    l2: NonNegative = 3e-8
    """alpha_l2, weight of the norm of the whole batch (eq. 3; the paper for CIFAR-10: 3e-8)"""
    l2_per_image: NonNegative = 0.0
    """weight of the mean norm of single images (the published ImageNet code's form of l2)"""
    feature: Balanced = 10.0
    """alpha_f, weight of the feature statistics (eq. 4-5; the paper for CIFAR-10: 1 to 100); auto: chosen before the
    run, so that the length of the term's gradient at noise is a fixed multiple of that of the class loss. Where no
    coefficient is named, feature and tv are auto in synthesize, distill, transfer, prune, quantize and extend"""
    competition: NonNegative = 10.0
    """alpha_c, weight of the competition with the student (eq. 8-9; the paper for CIFAR-10: 10)"""
    masked_kl: NonNegative = 1.33
    """fast, noisy: weight of the KL divergence from a student that predicts the same class (FastDFKD: 1.1, NAYER:
    1.33)"""
    one_hot: NonNegative = 1.0
    """dafl: weight of the cross-entropy with the teacher's own predictions (its paper: 1)"""
    activation: NonNegative = 0.1
    """dafl: weight of the mean absolute input of the teacher's last layer (its paper: 0.1)"""
    information_entropy: NonNegative = 5.0
    """dafl: weight of the entropy of the mean prediction (its paper: 5)"""

    @property
    def automatic(self) -> tuple[str, ...]:
        """The names of the coefficients that are `auto`, whose numbers are still to be chosen."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name) == AUTO)


@dataclass(frozen=True, config=STRICT)
class TargetsConfig:
    """The classes of the images."""

    rule: Literal["balanced", "random", "listed", "weighted"] = "balanced"
    """balanced: all classes in turn; random: all equally likely; listed: those of `classes` in turn; weighted: likely
    in proportion to `weights`"""
    classes: tuple[NonNegativeInt, ...] = ()
    """for listed: class indices, repeated in turn"""
    weights: tuple[NonNegative, ...] = ()
    """for weighted: one relative weight per class"""

    def __post_init__(self) -> None:
        for name, rule in (("classes", "listed"), ("weights", "weighted")):
            if bool(getattr(self, name)) != (self.rule == rule):
                allowed = f"given with synthesis.targets.rule {rule}, and with no other"
                remedy = "give both or neither"
                raise InputError(f"synthesis.targets.{name}", list(getattr(self, name)), allowed, remedy)
        if self.rule == "weighted" and not any(self.weights):
            raise InputError("synthesis.targets.weights", list(self.weights), "> 0 for one class at least", "raise one")


@dataclass(frozen=True, config=STRICT)
class StageConfig:
    """One stage of a multi-resolution inversion; null settings are those of `synthesis`."""

    size: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]] | None = None
    """height and width of the images in this stage; null: the teacher's"""
    iterations: Count | None = None
    """number of updates of the pixels"""
    learning_rate: Positive | None = None
    """learning rate of Adam, which is fresh in each stage"""
    betas: Betas | None = None
    """decay rates of Adam's two moments"""
    jitter: NonNegativeInt | None = None
    """largest shift in pixels"""
    upsampling: Literal["nearest", "bilinear", "bicubic"] = "nearest"
    """interpolation of the previous stage's images to this size (the paper: nearest)"""


@dataclass(frozen=True, config=STRICT)
class GeneratorNetworkConfig:
    """The network that makes images from latent codes, where the method has one: dafl, fast, noisy."""

    latent: Count = 256
    """length of a latent code (DAFL: 100 for digits, 1,000 for CIFAR-10; FastDFKD: 256), or of noisy's layer's output
    (NAYER: 1,000)"""
    width: Count = 64
    """channels of its last stage; earlier ones have twice that number (all three papers: 64)"""
    learning_rate: Positive = 2e-3
    """learning rate of Adam on its weights (FastDFKD with 10 updates a batch: 2e-3, with 2: 5e-3; NAYER: 4e-3)"""
    code_learning_rate: Positive = 0.01
    """fast: learning rate of Adam on the latent codes (FastDFKD with 10 updates a batch: 0.01)"""
    betas: Betas | None = None
    """decay rates of Adam's two moments; null: those of the method's paper (fast, noisy: 0.5 and 0.999, dafl: 0.9
    and 0.999)"""
    statistics_momentum: Share = 0.9
    """fast, noisy: share of the moving average over earlier batches in the feature statistics that are compared (both
    papers: 0.9); the gradient of R_feature is scaled by the rest, so 0.9 makes alpha_f act like a tenth of it"""
    outer_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """fast: share of the way that the initial weights of batches move to a batch's final ones"""
    embeddings: str = "classifier"
    """noisy: the vector of each class. classifier: the rows of the teacher's last layer; orthogonal: all classes
    equally far apart; otherwise the path of an .npy file with a row for each class (NAYER: of a text encoder), which
    every machine reads"""
    restart_batches: Count = 20
    """number of batches of a chain after which the network of noisy starts from scratch; NAYER has 100 before there is
    a student, then 20"""
    chains: Count = 1
    """number n of networks that learn side by side, each on every n-th batch: a batch starts from the state n batches
    before it, so at most n generators work at once"""


@dataclass(frozen=True, config=STRICT)
class SynthesisConfig:
    """Settings of the synthesis of a batch of images."""

    method: MethodName = "adaptive"
    """noise: class loss alone; deepdream: adds the image prior; deep_inversion: adds feature statistics; adaptive:
    adds competition with the student; dafl: a generator network, which learns from batch to batch and chooses the
    classes itself; fast: a generator network that learns its initialization, with a few updates for each batch;
    noisy: a generator network that maps an embedding of each class through a random layer, fresh in each batch"""
    batch_size: Count = 256
    """number of images made at once (the paper: 256); the total variation and the feature statistics are of the whole
    batch"""
    chunk_size: Count | None = None
    """number of images per pass through the networks, where a batch is larger than memory: the same result in two
    passes; null: the batch, halved each time that memory runs out"""
    targets: TargetsConfig = Field(default_factory=TargetsConfig)
    iterations: Count = 2000
    """number of updates of the pixels, or of the generator network, per batch (the paper: 2,000; FastDFKD: 2 to 10;
    NAYER: 30 for CIFAR-10)"""
    learning_rate: Positive = 0.05
    """learning rate of Adam on the pixels, in units of 0.225 of their range (the paper: 0.05)"""
    betas: Betas = (0.9, 0.999)
    """decay rates of Adam's two moments, on the pixels"""
    generator: GeneratorNetworkConfig = Field(default_factory=GeneratorNetworkConfig)
    decay: Literal["constant", "cosine"] = "constant"
    """decay of the pixels' learning rate over a stage's updates (the paper for CIFAR-10: constant); a generator
    network's is always constant"""
    warm_up: NonNegativeInt = 0
    """updates over which the pixels' learning rate rises from 0, in each stage (the published ImageNet code: 100)"""
    jitter: NonNegativeInt = 2
    """largest shift in pixels by which each update rolls the images (the published code: 2); with fast and noisy each
    image is shifted separately, with black at the edge (both papers for 32 x 32 pixels: 4)"""
    flip: bool = False
    """mirror the images in half of the updates; never for digits or text"""
    clip: bool = True
    """keep pixels between black and white"""
    stages: tuple[StageConfig, ...] = ()
    """resolutions in turn, each with its deviations from the settings above; none: one stage at the teacher's"""
    start: Literal["noise", "images"] = "noise"
    """initialization of adaptive rounds: N(0, 1), or images already made"""
    first_bn: NonNegative = 1.0
    """multiplier of the first BN layer's feature distance (the published code: 1 for CIFAR-10, 10 for ImageNet)"""
    competition_temperature: Positive = 3.0
    """temperature of both networks in the competition (the published code: 3)"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """precision of the networks' arithmetic (autocast); auto: bf16 where the hardware supports it, fp32 elsewhere;
    pixels, statistics and losses are always fp32, and with fp16 so is the generator network"""
    compile: Literal["auto", "on", "off"] = "auto"
    """use torch.compile; auto: where the run's batches take long enough to pay for compiling; without a compiler images
    are made uncompiled, and a note says so"""
    coefficients: CoefficientsConfig = Field(default_factory=CoefficientsConfig)

    def __post_init__(self) -> None:
        own = [name for name in self.terms if name not in ADVERSARIES]
        if not any(getattr(self.coefficients, name) for name in own):
            raise InputError(
                "synthesis.coefficients",
                0.0,
                f"> 0 for at least one of {', '.join(own)} (method {self.method})",
                "with nothing to minimize the images stay noise",
            )
        if self.learns and self.coefficients.automatic:
            allowed = f"a number with method {self.method}, whose gradient passes through a generator network"
            field = f"synthesis.coefficients.{self.coefficients.automatic[0]}"
            raise InputError(field, AUTO, allowed, "name one, or choose an inversion")
        if self.stages and self.stages[-1].size is not None:
            allowed = "null in the last stage, which is at the teacher's resolution"
            raise InputError("synthesis.stages.size", self.stages[-1].size, allowed, "leave it out there")
        if self.learns and self.stages:
            allowed = f"none with method {self.method}, whose network makes images of one size"
            raise InputError("synthesis.stages", len(self.stages), allowed, "leave them out")
        if self.learns and self.start == "images":
            allowed = f"noise with method {self.method}, which starts from latent codes"
            raise InputError("synthesis.start", "images", allowed, "leave it out")

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the method's objective, whatever their coefficients."""
        return METHODS[self.method].terms

    @property
    def generator_betas(self) -> tuple[float, float]:
        """The decay rates of Adam's two moments on a generator network: as set, else those of the method's paper."""
        return self.generator.betas or METHODS[self.method].generator_betas

    @property
    def learns(self) -> bool:
        """Return whether state is learned from batch to batch, which makes a batch depend on the previous one."""
        return METHODS[self.method].learns

    @property
    def competes(self) -> bool:
        """Return whether images are made against a snapshot of the student."""
        return any(getattr(self.coefficients, name) > 0 for name in self.terms if name in ADVERSARIES)


def default_coefficients(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the coefficients that apply beneath a user's nested settings of a job that makes images.

    Where the user names none, those that follow from the teacher are `auto`, for methods that invert pixels.
    """
    synthesis = settings.get("synthesis", {})
    if not isinstance(synthesis, Mapping) or synthesis.get("coefficients"):
        return {}
    method = METHODS.get(str(synthesis.get("method", SynthesisConfig.method)))
    if method is None or method.learns:
        return {}
    automatic = [name for name in ("feature", "tv") if name in method.terms]
    return {"synthesis": {"coefficients": dict.fromkeys(automatic, AUTO)}} if automatic else {}


def default_coefficients_if_made(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the coefficients that apply beneath a user's nested settings of a job that may be given its images.

    As `default_coefficients`, if it makes images: where none are named, or in rounds that add some.
    """
    additions = settings.get("additions", {})
    adds = isinstance(additions, Mapping) and additions.get("rounds")
    return {} if settings.get("images") and not adds else default_coefficients(settings)
