"""Every configuration file that comes along can be used, and the presets say what the paper and its code say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydream.commands import NAMES, imported
from raydream.config import (
    DistillConfig,
    PruneConfig,
    ReproduceConfig,
    SynthesisConfig,
    SynthesizeConfig,
    TeacherJobConfig,
    TransferConfig,
)
from raydream.config.conversion import validate
from raydream.config.teacher import WITH_CHECKSUM
from raydream.networks import build_student, build_teacher, parameters_of
from raydream.reproduction.scales import SCALES, settings_of
from raydream.synthesis.stages import stages_of, updates_of

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
SCALE_FILES = [ROOT / "platform/raydream/reproduction/scales" / f"{scale}.yaml" for scale in SCALES]
PRESETS = {path.stem: path for path in sorted((CONFIGS / "presets").glob("*.yaml"))}
TRANSFERS = {name: path for name, path in PRESETS.items() if name.startswith("transfer_")}
SHIPPED = [*sorted(CONFIGS.rglob("*.yaml")), *sorted((ROOT / "tuning").rglob("*.yaml")), *SCALE_FILES]
"""all settings that come along"""


def preset(name: str) -> SynthesisConfig:
    settings = yaml.safe_load(PRESETS[name].read_text())
    validate(DistillConfig, settings)
    return validate(SynthesisConfig, settings["synthesis"])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid(path):
    settings, words = yaml.safe_load(path.read_text()), path.stem.split("_")
    named = [imported(entry.config) for name, entry in NAMES.items() if entry.config and name in words]
    usual = TeacherJobConfig if "teacher" in words else SynthesizeConfig if "images" in settings else DistillConfig
    validate(*named or [usual], settings)  # type: ignore[call-arg]


def texts(settings: Any) -> Iterator[str]:
    """All text in nested settings."""
    if isinstance(settings, dict | list):
        for inner in settings.values() if isinstance(settings, dict) else settings:
            yield from texts(inner)
    elif isinstance(settings, str):
        yield settings


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_settings_name_a_file_outside_the_folder_that_they_are_used_in(path):
    for text in texts(yaml.safe_load(path.read_text())):
        if "://" in text:
            assert text.startswith("https://") and WITH_CHECKSUM.fullmatch(text), text
        else:
            assert not Path(text).is_absolute() and ".." not in Path(text).parts and not text.startswith("~"), text


@pytest.mark.parametrize(
    "name", [name for name in sorted(PRESETS.keys() - TRANSFERS.keys()) if not name.startswith("prune_")]
)
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


def test_the_papers_imagenet():
    weights = preset("imagenet_paper").coefficients
    # Its alpha_l2 is of the norm of each image, as in its published code for ImageNet.
    assert (weights.tv, weights.l2, weights.l2_per_image, weights.feature) == (1e-4, 0.0, 1e-2, 1e-2)
    assert weights.competition == 0.2


def test_the_papers_tables_are_made_as_its_presets_say():
    looked_at, transfer = (validate(ReproduceConfig, {"table": t, **settings_of(t, "paper")}) for t in (2, 6))
    weights = preset("imagenet_paper").coefficients
    names = ("classification", "tv", "l2", "l2_per_image", "feature", "competition")
    assert all(getattr(looked_at.synthesis.coefficients, name) == getattr(weights, name) for name in names)
    assert (transfer.student.batch_size, transfer.student.learning_rate) == (1024, 1.024)


def test_the_papers_cifar10():
    made = preset("cifar10_paper")
    assert (made.batch_size, made.iterations, made.learning_rate) == (256, 2000, 0.05)
    assert (made.coefficients.tv, made.coefficients.l2) == (2.5e-5, 3e-8)


@pytest.mark.parametrize(("name", "epochs", "mixes"), [("90_epochs", 90, False), ("250_epochs_mixup", 250, True)])
def test_the_papers_transfers(name, epochs, mixes):
    settings = yaml.safe_load(TRANSFERS[f"transfer_{name}"].read_text())
    made = validate(TransferConfig, {**settings, "teacher": {"checkpoint": "weights"}})
    assert (made.new_images, made.epochs, made.student.temperature) == (140_000, epochs, 3)
    assert bool(made.student.view.mixup) == mixes
    assert (made.student.batch_size, made.student.learning_rate) == (1024, 1.024)
    assert made.student.warm_up in (0, 5 * -(-140_000 // made.student.batch_size))


def test_the_student_of_the_digits_transfer_has_at_most_a_quarter_of_its_teachers_parameters():
    made = validate(TransferConfig, yaml.safe_load((CONFIGS / "digits_transfer.yaml").read_text()))
    student, teacher = build_student(made.student, made.teacher), build_teacher(made.teacher)
    assert parameters_of(student) <= parameters_of(teacher) / 4
