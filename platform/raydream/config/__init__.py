"""Every setting of a run: small frozen dataclasses, one per component, checked field by field.

A field's type and `Field(...)` say what is allowed, its docstring says what it means and in which unit (and is its
`--help`). Rules between fields of one component are in that component's `__post_init__`; rules that need the network or
the machine are in `jobs/checks/`. Nothing here imports torch or Ray, so that a typo is reported at once.
"""

from raydream.config.continual import ContinualConfig
from raydream.config.jobs import (
    QUANTIZED_STUDENT,
    DistillConfig,
    DoctorConfig,
    EvaluateConfig,
    FromImages,
    PruneConfig,
    QuantizeConfig,
    SynthesizeConfig,
    TeacherJobConfig,
    TransferConfig,
)
from raydream.config.pruning import AdditionsConfig, PruningConfig
from raydream.config.quantization import QuantizationConfig
from raydream.config.reproduce import ReproduceConfig
from raydream.config.runtime import BufferConfig, GeneratorsConfig, RoundsConfig, WorkersConfig
from raydream.config.search import AblateConfig, SearchConfig, TrialConfig
from raydream.config.student import StudentConfig, ViewConfig
from raydream.config.synthesis import (
    METHODS,
    CoefficientsConfig,
    GeneratorNetworkConfig,
    StageConfig,
    SynthesisConfig,
    TargetsConfig,
)
from raydream.config.teacher import DataConfig, TeacherConfig, TrainingConfig

__all__ = [
    "METHODS",
    "QUANTIZED_STUDENT",
    "AblateConfig",
    "AdditionsConfig",
    "BufferConfig",
    "CoefficientsConfig",
    "ContinualConfig",
    "DataConfig",
    "DistillConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "FromImages",
    "GeneratorNetworkConfig",
    "GeneratorsConfig",
    "PruneConfig",
    "PruningConfig",
    "QuantizationConfig",
    "QuantizeConfig",
    "ReproduceConfig",
    "RoundsConfig",
    "SearchConfig",
    "StageConfig",
    "StudentConfig",
    "SynthesisConfig",
    "SynthesizeConfig",
    "TargetsConfig",
    "TeacherConfig",
    "TeacherJobConfig",
    "TrainingConfig",
    "TransferConfig",
    "TrialConfig",
    "ViewConfig",
    "WorkersConfig",
]
