"""Settings of a search over an experiment's settings, and of the ablation of its terms."""

from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, NonNegative, Positive
from raydream.config.jobs import DistillConfig
from raydream.config.synthesis import METHODS, one_of
from raydream.config.teacher import TeacherConfig
from raydream.errors import InputError

Metric = Literal[
    "auto",
    "accuracy",
    "exam_agreement",
    "own_agreement",
    "verifier_agreement",
    "target_share",
    "feature_distance",
    "diversity",
]
"""objective metric of a trial; `search/metrics.py` describes each"""


@dataclass(frozen=True, config=STRICT)
class TrialConfig:
    """The processes of trials: each trial runs in a separate process, which releases its resources at its end."""

    cpus: Positive = 1.0
    """CPUs that each trial reserves; it computes with max(1, cpus) threads"""
    gpus: NonNegative = 0.0
    """GPUs that each reserves; fractions share one"""
    concurrent: Count | None = None
    """largest number of trials at once; null: all that fit the resources"""


@dataclass(frozen=True, config=STRICT)
class SearchConfig(DistillConfig):
    """Search the settings of an experiment, which is described as for raydream distill."""

    space: str | dict[str, Any] = Field(default_factory=dict)
    """YAML file with the searched settings and the reduced scale of a trial; see tuning/spaces/"""
    trials: Count | None = None
    """number of trials; null: all points of a grid, else 32"""
    searcher: Literal["grid", "random", "tpe"] = "tpe"
    """sampler of the trials' settings; grid: all points of the space in turn; random: independent draws; tpe: Optuna's
    tree of Parzen estimators, which samples near good earlier trials"""
    scheduler: Literal["none", "asha", "median"] = "asha"
    """early stopping of trials; none; asha: after 1, 3, 9 ... reports all but the best third; median: those below the
    median of the others at the same report"""
    metric: Metric = "auto"
    """objective metric; accuracy: the student's on the validation split of real data; auto: accuracy where there are
    real data, else the data-free metric that predicts it best (docs/tuning.md)"""
    also: tuple[Metric, ...] = ()
    """further metrics to record for each trial"""
    verifiers: str | tuple[TeacherConfig, ...] = ()
    """independent networks for verifier_agreement, as in raydream evaluate"""
    images_only: bool = False
    """trials only make images (rounds.initial_batches batches) and train no student"""
    trial: TrialConfig = Field(default_factory=TrialConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.space:
            raise InputError("space", self.space, "a YAML file such as tuning/spaces/coefficients.yaml", "name one")
        if self.images_only and self.synthesis.competes:
            alone = one_of([name for name, each in METHODS.items() if not each.competes])
            allowed = f"{alone} where images_only is true"
            remedy = "there is no student to compete with (fast and noisy: set the coefficient of that term to 0)"
            raise InputError("synthesis.method", self.synthesis.method, allowed, remedy)


@dataclass(frozen=True, config=STRICT)
class AblateConfig(DistillConfig):
    """Switch the terms of an experiment's objective on and off, in all combinations, over several seeds."""

    seeds: Count = 3
    """number of runs of each combination, with seeds from `seed` on"""
    verifiers: str | tuple[TeacherConfig, ...] = ()
    """independent networks to judge images by, as in raydream evaluate"""
    trial: TrialConfig = Field(default_factory=TrialConfig)
