"""Weights from files, in the forms that people have them, never executing a pickle; and back."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from raydream.errors import InputError, first_line
from raydream.folders import file_at
from raydream.storage import write_aside

NESTINGS = ("state_dict", "model_state_dict", "model", "net", "module", "ema")
"""under which a state dict may lie in a checkpoint; the first that is there counts"""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""that wrappers put before every name: DataParallel, torch.compile, training frameworks"""
COUNTERS = ("num_batches_tracked", "n_averaged")
"""what only training needs"""
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""heads of Inception and GoogLeNet that only training runs, and that torchvision's checkpoints hold"""


def load_weights(network: nn.Module, path: str | Path, field: str, name: str) -> None:
    """Load a checkpoint into a network.

    Args:
        path: or URL, of safetensors, or of what `torch.save` wrote of a state dict, bare or nested, with or without
            prefixes.
        field: the option's name, for the error.
        name: of the network, for the error.

    Raises:
        InputError: no such file, not a state dict of plain tensors, or one of another network; it lists what is
            missing, unexpected and wrongly shaped.
    """
    fit_weights(network, read_state(path, field), field, str(path), name)


def fit_weights(network: nn.Module, state: Mapping[str, Tensor], field: str, value: str, name: str) -> None:
    """Load a state dict into a network; raises InputError as `load_weights` does."""
    own = network.state_dict()
    state = _without_prefixes(state, set(own))
    missing = [key for key in own if key not in state and not key.endswith(COUNTERS)]
    state = {key: value for key, value in state.items() if key in own or not key.startswith(AUXILIARY)}
    unexpected = [key for key in state if key not in own and not key.endswith(COUNTERS)]
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape and not key.endswith(COUNTERS)
    ]
    problems = {"missing": missing, "unexpected": unexpected, "wrongly shaped": shapes}
    if any(problems.values()):
        told = "; ".join(f"{kind}: {_some(names)}" for kind, names in problems.items() if names)
        described = field.rpartition(".")[0] or "teacher"
        remedy = f"it does not fit ({told}): name its network in {described}.network and {described}.arguments"
        raise InputError(field, value, f"a checkpoint of {name}", remedy)
    fitting = {key: state[key] for key in own if key in state and state[key].shape == own[key].shape}
    network.load_state_dict(fitting, strict=False)


def read_state(path: str | Path, field: str) -> dict[str, Tensor]:
    """The state dict in a file, nothing of which is executed; raises InputError."""
    allowed = "a file with a state dict (.safetensors, or torch.save's)"
    try:
        folder, name = file_at(str(path))
        if not folder.has(name):
            raise InputError(field, str(path), allowed, "there is no such file")
        content = folder.read(name)
        if name.endswith(".safetensors"):
            found: Any = safetensors.torch.load(content)
        else:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # both libraries raise many kinds for a damaged or foreign file
        remedy = f"reading it safely failed: {_reason(error)}"
        if other := re.search(r"GLOBAL (\S+)", str(error)):
            remedy = (
                f"reading it safely failed, as it holds {other.group(1)} beside tensors: where you trust it, load "
                "it with weights_only=False and save its state dict alone"
            )
        raise InputError(field, str(path), allowed, remedy) from error
    while isinstance(found, Mapping):
        inner = next((found[key] for key in NESTINGS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping) or not found or not all(_is_plain(v) for v in found.values()):
        kind = "nothing" if isinstance(found, Mapping) and not found else f"something else ({_told(found)})"
        raise InputError(field, str(path), allowed, f"it holds {kind}")
    return {str(name): value for name, value in found.items()}


def save_network(network: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors, aside and renamed; raises OSError."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_aside(path, lambda aside: aside.write_bytes(safetensors.torch.save(state)))


def _without_prefixes(state: Mapping[str, Tensor], own: set[str]) -> Mapping[str, Tensor]:
    """Names without what wrappers put before all of them, unless the network's own names begin like that."""
    while not own & set(state):
        names = [name for name in state if name not in COUNTERS]
        prefix = next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), None)
        if prefix is None:
            return state
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor with all its values; there are sparse ones, and some without any data."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _told(found: Any) -> str:
    if isinstance(found, Mapping):
        others = {name: value for name, value in found.items() if not _is_plain(value)}
        return _some([f"{name}: {type(value).__name__}" for name, value in others.items()])
    return type(found).__name__


def _reason(error: Exception) -> str:
    """What a library says of a file that it cannot read; torch's advice is to execute it, which is left out."""
    said = first_line(error)
    return "it is no checkpoint, or a damaged one" if "weights_only" in said else said


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
