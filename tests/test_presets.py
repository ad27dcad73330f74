"""Every configuration file that comes along can be used, and the presets say what the paper and its code say."""

from pathlib import Path

import pytest
import yaml

from raydream.command_line import validate
from raydream.config import (
    DistillConfig,
    PruneConfig,
    SynthesisConfig,
    SynthesizeConfig,
    TeacherJobConfig,
    TransferConfig,
)
from raydream.synthesis.stages import stages_of, updates_of

CONFIGS = Path(__file__).parents[1] / "configs"
PRESETS = {path.stem: path for path in sorted((CONFIGS / "presets").glob("*.yaml"))}


def preset(name: str) -> SynthesisConfig:
    settings = yaml.safe_load(PRESETS[name].read_text())
    validate(DistillConfig, settings)
    return validate(SynthesisConfig, settings["synthesis"])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid(path):
    settings = yaml.safe_load(path.read_text())
    if path.stem.endswith(("_transfer", "_prune")):
        kind = TransferConfig if path.stem.endswith("_transfer") else PruneConfig
        teacher = {"checkpoint": "of that run", **settings.get("teacher", {})}
        validate(kind, {**settings, "images": "of a run", "teacher": teacher})
        return
    kind = TeacherJobConfig if path.stem.endswith("_teacher") else DistillConfig
    validate(SynthesizeConfig if "images" in settings else kind, settings)


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("prune_")])
def test_every_preset_is_valid(name):
    assert updates_of(preset(name)) >= 500


def pruning(name: str) -> PruneConfig:
    settings = yaml.safe_load(PRESETS[name].read_text())
    return validate(PruneConfig, {**settings, "images": "of a run", "teacher": {"checkpoint": "of that run"}})


def test_the_papers_pruning():
    made = pruning("prune_paper")
    assert (made.pruning.criterion, made.pruning.ratio, made.pruning.epochs) == ("taylor", 0.2, 30)
    added = made.additions.batches * made.synthesis.batch_size
    assert made.additions.rounds == 2 and 24_000 <= added <= 26_000 and made.synthesis.competes


def test_the_small_pruning():
    assert pruning("prune_small").additions.rounds == 0


def test_the_papers_multi_resolution():
    low, high = stages_of(preset("imagenet_multi_resolution"), (224, 224))
    assert (low.size, low.iterations, low.jitter) == ((112, 112), 2000, 15)
    assert (high.size, high.iterations, high.jitter, high.upsampling) == ((224, 224), 1000, 30, "nearest")


def test_the_papers_cifar10():
    made = preset("cifar10_paper")
    assert (made.batch_size, made.iterations, made.learning_rate) == (256, 2000, 0.05)
    assert (made.coefficients.tv, made.coefficients.l2) == (2.5e-5, 3e-8)
