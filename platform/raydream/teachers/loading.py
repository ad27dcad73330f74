"""Teachers by their description: from a checkpoint or from published weights; and the names of those trained here."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from raydream.config import DataConfig, TeacherConfig, TrainingConfig
from raydream.config.network_names import TIMM
from raydream.config.teacher import TORCHVISION
from raydream.data import load_data
from raydream.errors import InputError, first_line
from raydream.networks import build_teacher
from raydream.networks.gathered import adopt_statistics
from raydream.teachers.checkpoints import fit_weights, read_state
from raydream.teachers.statistics import add_statistics
from raydream.teachers.teacher import Teacher, fingerprint_of, make_teacher


def load_teacher(config: TeacherConfig, field: str = "teacher") -> Teacher:
    """Load the teacher that a description names.

    Args:
        config: `checkpoint` is the path or URL of a file; or, for torchvision:NAME, the name of published weights
            (IMAGENET1K_V1, DEFAULT); or, for timm:NAME, the word pretrained.
        field: the option's name, for the error.

    Raises:
        InputError: see `load_weights` and `add_statistics`; or published weights that do not exist, or cannot be
            downloaded from here.
    """
    if config.checkpoint is None:
        raise ValueError("there is no checkpoint to load: train the teacher instead")
    network = build_teacher(config, field)
    is_file = "://" in config.checkpoint or Path(config.checkpoint).exists()
    if is_file or not config.network.startswith((TORCHVISION, TIMM)):
        state = read_state(config.checkpoint, f"{field}.checkpoint")
        if config.statistics:  # a run's copy of its teacher has them
            adopt_statistics(network, state)
        fit_weights(network, state, f"{field}.checkpoint", config.checkpoint, config.network)
    else:
        _load_published(network, config.network, config.checkpoint, f"{field}.checkpoint")
    add_statistics(network, config, field)
    return make_teacher(network, config)


def _load_published(network: nn.Module, name: str, weights: str, field: str) -> None:
    if name.startswith(TIMM):
        if weights != "pretrained":
            raise InputError(field, weights, f"a file, or pretrained, for {name}", "there is no such file")
        import timm

        try:
            state = timm.create_model(name.removeprefix(TIMM), pretrained=True).state_dict()
        except Exception as error:  # a hub that is not reached, a model without weights
            remedy = f"fetching them failed: {first_line(error)}"
            raise InputError(field, weights, f"weights that timm has for {name}", remedy) from error
    else:
        import torchvision

        known = torchvision.models.get_model_weights(name.removeprefix(TORCHVISION))
        if weights not in known.__members__:
            allowed = f"a file, or one of {', '.join(known.__members__)}, for {name}"
            raise InputError(field, weights, allowed, "there is no such file")
        try:
            state = known[weights].get_state_dict(progress=False, check_hash=True, weights_only=True)
        except Exception as error:  # no connection, a damaged download
            remedy = f"fetching them failed ({first_line(error)}): download them elsewhere, and name the file"
            raise InputError(field, weights, f"weights that can be had for {name}", remedy) from error
    fit_weights(network, state, field, weights, name)


def library_path(config: TeacherConfig, training: TrainingConfig, data: DataConfig) -> Path:
    """Return the library's path of a recipe's teacher, named by a fingerprint of the whole recipe."""
    recipe = (config.network, config.arguments, config.input_shape, config.mean, config.std, config.classes)
    how = (training.epochs, training.batch_size, training.learning_rate, training.weight_decay, training.shift)
    of = (data.name, *([data.classes] if data.classes else []), *_beyond(training))
    name = fingerprint_of([repr((recipe, how, training.seed, *of)).encode(), *_content(config, data)])
    return Path(training.library) / f"{config.network.replace(':', '-')}-{name}.safetensors"


def _beyond(training: TrainingConfig) -> list[tuple[str, Any]]:
    """Return what a recipe says beyond those of version 0.1, whose teachers keep their names."""
    plain, named = (
        TrainingConfig(),
        {"epochs", "batch_size", "learning_rate", "weight_decay", "shift", "seed", "library"},
    )
    others = [field.name for field in fields(training) if field.name not in named]
    return [(name, value) for name in others if (value := getattr(training, name)) != getattr(plain, name)]


def _content(config: TeacherConfig, data: DataConfig) -> list[bytes]:
    """Identify the training data where a name is not enough; raises InputError."""
    real = load_data(data, config) if data.name != "digits" else None
    return [] if real is None else [real.train.images.tobytes(), real.train.labels.tobytes()]
