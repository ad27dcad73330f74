"""Teachers from files: checkpoints as people have them, never executing a pickle."""

import contextlib
import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from raydream.config import DataConfig, TeacherConfig, TrainingConfig
from raydream.data import load_data
from raydream.errors import InputError, first_line
from raydream.losses.feature_statistics import FeatureObserver, batch_norm_layers
from raydream.networks import build_teacher
from raydream.storage import write_aside
from raydream.teachers.teacher import Teacher, fingerprint_of, make_teacher
from raydream.teachers.training import OnEpoch, train_teacher

NESTINGS = ("state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")


def load_teacher(config: TeacherConfig) -> Teacher:
    """The teacher of a checkpoint.

    Args:
        config: `checkpoint` is a path to safetensors, or to what `torch.save` wrote of a state dict, bare or nested
            under "state_dict", "model" or "net", with or without the prefixes of DataParallel and torch.compile.

    Raises:
        InputError: no such file, not a state dict of plain tensors, or one of another network.
    """
    if config.checkpoint is None:
        raise ValueError("there is no checkpoint to load: train the teacher instead")
    network = build_teacher(config)
    state = _read_state(Path(config.checkpoint))
    own = network.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "wrongly shaped": shapes}
    if any(problems.values()):
        told = "; ".join(f"{kind}: {_some(names)}" for kind, names in problems.items() if names)
        remedy = f"it does not fit ({told}): name its network in teacher.network and teacher.arguments"
        raise InputError("teacher.checkpoint", config.checkpoint, f"a checkpoint of {config.network}", remedy)
    network.load_state_dict(state, strict=False)
    return make_teacher(network, config)


def check_network(network: nn.Module, config: TeacherConfig, method: str) -> None:
    """See that a network can be this teacher and be inverted by this method; restores its mode.

    Raises:
        InputError: its input or output is not as described, or it has no BN layers for a method that needs them.
    """
    needed = method in ("deep_inversion", "adaptive")
    layers = batch_norm_layers(network).values()
    if needed and not any(layer.running_mean is not None for layer in layers):
        raise InputError(
            "synthesis.method",
            method,
            f"noise or deepdream for {config.network}, which has no BN layers with running statistics",
            "choose one of these, or a teacher with batch normalisation",
        )
    with FeatureObserver(network) if needed else contextlib.nullcontext() as observer:
        shape = probe(network, config, "teacher.input_shape", config.input_shape, training=False)
        try:
            if observer is not None:
                observer.distances()
        except ValueError as error:
            remedy = f"{error}: leave them out of the network"
            raise InputError("teacher.network", config.network, "a network whose BN layers all run", remedy) from error
    if shape != (2, config.classes):
        allowed = f"the number of logits of {config.network}"
        raise InputError("teacher.classes", config.classes, allowed, f"a probe of two images gave {shape}")


def probe(network: nn.Module, config: TeacherConfig, field: str, value: object, training: bool) -> tuple[int, ...]:
    """The shape of a network's answer to two black images of the teacher's shape; leaves no trace in the network.

    Raises:
        InputError: it raised, or answered with something else than a tensor; blames `field`.
    """
    copied = copy.deepcopy(network) if training else network
    mode = network.training
    allowed = f"of a network that maps images {config.input_shape} to logits"
    try:
        with torch.no_grad():
            answer = copied.train(training)(torch.zeros(2, *config.input_shape))
    except Exception as error:  # whatever somebody's network raises
        raise InputError(field, value, allowed, f"a probe failed: {first_line(error)}") from error
    finally:
        network.train(mode)
    if not isinstance(answer, Tensor):
        raise InputError(field, value, allowed, f"a probe gave a {type(answer).__name__}")
    return tuple(answer.shape)


def trained_teacher(
    config: TeacherConfig, training: TrainingConfig, data: DataConfig, on_epoch: OnEpoch = lambda *_: None
) -> tuple[Teacher, bool]:
    """The teacher that this recipe makes: from the library where it was trained before, else trained now.

    Returns:
        the teacher, and whether it was found.
    """
    path = library_path(config, training, data)
    if path.exists():
        return load_teacher(replace(config, checkpoint=str(path))), True
    real = load_data(data.name)
    if real is None:
        raise ValueError("there are no real data to train a teacher on")
    network = train_teacher(config, training, real.train, on_epoch)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, path)
    return make_teacher(network, config), False


def library_path(config: TeacherConfig, training: TrainingConfig, data: DataConfig) -> Path:
    """Where the library keeps the teacher of a recipe: named by a fingerprint of all that made it."""
    recipe = (config.network, config.arguments, config.input_shape, config.mean, config.std, config.classes)
    how = (training.epochs, training.batch_size, training.learning_rate, training.weight_decay, training.shift)
    name = fingerprint_of([repr((recipe, how, training.seed, data.name)).encode()])
    return Path(training.library) / f"{config.network.replace(':', '-')}-{name}.safetensors"


def save_network(network: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors, aside and renamed; raises OSError."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_aside(path, lambda aside: aside.write_bytes(safetensors.torch.save(state)))


def _read_state(path: Path) -> dict[str, Tensor]:
    field, allowed = "teacher.checkpoint", "a file with a state dict (.safetensors, or torch.save's)"
    if not path.is_file():
        raise InputError(field, str(path), allowed, "there is no such file")
    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(str(path))
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both libraries raise many kinds for a damaged or foreign file
        raise InputError(field, str(path), allowed, f"reading it safely failed: {first_line(error)}") from error
    for key in NESTINGS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(field, str(path), allowed, "it holds something else")
    return {_bare(str(name)): value for name, value in found.items()}


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
