"""Settings of an experiment that reproduces a table of the paper."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, Device, Name, NonNegative, NonNegativeInt, Positive, reserved
from raydream.config.pruning import AdditionsConfig, PruningConfig
from raydream.config.runtime import BufferConfig, RoundsConfig
from raydream.config.student import StudentConfig
from raydream.config.synthesis import SynthesisConfig
from raydream.config.teacher import DataConfig, TeacherConfig, TrainingConfig
from raydream.errors import InputError

TABLES = range(1, 8)
Ratio = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, config=STRICT)
class ReproduceConfig:
    """Make a table of the paper; table and scale determine all settings that are not given."""

    experiment: Name = "reproduce"
    """name of the experiment; its runs are kept in runs/<experiment>/"""
    table: int = 0
    """table of the paper, 1 to 7; 1: students by method; 2: images as classified by other networks; 3: quality and
    diversity of images; 4: pruning by images; 5: pruning by method; 6: transfer by images; 7: new classes"""
    scale: Literal["digits", "cifar", "paper"] = "digits"
    """digits: scikit-learn's digits, minutes on two CPU cores; cifar: CIFAR-10 with the user's teacher and data;
    paper: its own numbers, for a cluster of GPUs"""
    rows: tuple[str, ...] = ()
    """rows of the table; none: all"""
    seed: NonNegativeInt = 0
    """run seed, from which all other seeds are derived"""
    seeds: Count = 5
    """number of runs for each figure, with seeds from `seed` on"""
    estimate: bool = False
    """only estimate time and storage, from a measured step"""
    library: str | None = None
    """folder or URL of the library of results and images, which runs of equal settings share; null: runs/library, or on
    a joined cluster the run's own folder"""
    device: Device = "auto"
    """device of the networks; auto: cuda where `gpus` reserves a GPU, else mps if available, else cpu"""
    cpus: Positive = 1.0
    """CPUs that each cell of the table reserves; it computes with max(1, cpus) threads"""
    gpus: NonNegative = 0.0
    """GPUs that each cell reserves; fractions share one"""
    stall_timeout_s: Positive = 3600.0
    """seconds without progress of a cell after which a run gives up"""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    student: StudentConfig = Field(default_factory=StudentConfig)
    rounds: RoundsConfig = Field(default_factory=lambda: RoundsConfig(lockstep=True))
    """table 1: rounds of images and learning"""
    buffer: BufferConfig = Field(default_factory=BufferConfig)
    new_images: Count = 1024
    """tables 2 to 6: number of images of each source"""
    sources: dict[str, str] = Field(default_factory=dict)
    """tables 4 and 6: further real images by the names of their rows, each a path as raydream transfer --images takes
    it"""
    verifiers: str | tuple[TeacherConfig, ...] = ()
    """tables 2 and 3: independent networks, as in raydream evaluate; those without a checkpoint are trained on `data`,
    each from a different seed; table 3 uses the first one's features"""
    ratios: tuple[Ratio, ...] = (0.5, 0.2)
    """table 4: shares of filters to remove; table 5: the first of them"""
    epochs: Count = 90
    """tables 6 and 7: passes over the images"""
    pruning: PruningConfig = Field(default_factory=PruningConfig)
    additions: AdditionsConfig = Field(default_factory=AdditionsConfig)
    """tables 4 and 5: rounds of images that compete with the pruned network; none: adaptive images come before"""
    steps: tuple[DataConfig, ...] = ()
    """table 7: as in raydream extend"""
    images_per_class: Count = 250
    """table 7: number of images of each old class"""

    def __post_init__(self) -> None:
        if self.table not in TABLES:
            raise InputError("table", self.table, "1 to 7", "give it as --table N")
        self.teacher.check_unobserved()
        if self.data.name == "none":
            raise InputError("data.name", "none", "a data set", "all tables are measured on real images: name some")
        if self.device == "cuda" and not self.gpus:
            raise InputError("gpus", self.gpus, "> 0 where device is cuda", "give it a share, such as 1")
        if self.new_images % self.synthesis.batch_size and self.table in range(2, 7):
            allowed = f"a multiple of synthesis.batch_size ({self.synthesis.batch_size})"
            raise InputError("new_images", self.new_images, allowed, "change one of the two")
        if self.table in (2, 3) and not self.verifiers:
            remedy = "images are looked at by others than their teacher: name them as NETWORK=CHECKPOINT"
            raise InputError("verifiers", [], f"one network at least for table {self.table}", remedy)
        if self.table == 5 and not self.pruning.eta:
            raise InputError("pruning.eta", 0.0, "> 0 for table 5", "its hardware-aware rows weigh latency by it")
        if len({f"{ratio:.0%}" for ratio in self.ratios}) < len(self.ratios):
            raise InputError("ratios", list(self.ratios), "shares that differ in whole percents", "leave one out")
        if not self.ratios and self.table in (4, 5):
            raise InputError("ratios", [], "one share at least", "say how many filters are to be removed")
        if self.additions.rounds and self.synthesis.method != "adaptive" and self.table in (4, 5):
            remedy = "rounds make images that compete with the pruned network"
            raise InputError("synthesis.method", self.synthesis.method, "adaptive beside additions.rounds", remedy)

    @property
    def resources(self) -> dict[str, float]:
        """The resources that Ray reserves for each cell."""
        return reserved(self.cpus, self.gpus, None)
