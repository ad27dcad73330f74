"""Reads weights from files in common formats without executing pickles, and writes them."""

import io
import re
import zipfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from raydream.config.network_names import WEIGHTS
from raydream.config.teacher import CHECKSUM, ON_THE_WEB
from raydream.errors import InputError, first_line
from raydream.memory import in_words
from raydream.store.atomic import write_atomically
from raydream.store.downloads import downloaded
from raydream.store.folders import file_at

NESTINGS = ("state_dict", "model_state_dict", "model", "net", "module", "ema")
"""keys that may hold the state dict in a checkpoint; the first one present counts"""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""prefixes that wrappers put before every name: DataParallel, torch.compile, training frameworks"""
COUNTERS = ("num_batches_tracked", "n_averaged")
"""what only training needs"""
STATISTICS = ("running_mean", "running_var")
"""of batch normalization"""
COMPRESSED = 2**26
"""bytes that a zip file may be larger unpacked: code in it is compressed, weights never are"""
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""training-only heads of Inception and GoogLeNet that torchvision's checkpoints hold"""


def load_weights(network: nn.Module, path: str | Path, field: str, name: str) -> None:
    """Load a checkpoint into a network.

    Args:
        path: path or URL of safetensors, or of a state dict written by `torch.save`, bare or nested, with or without
            prefixes; https://...#sha256=CHECKSUM is downloaded first, see `downloaded`.
        field: the option's name, for the error.
        name: the network's name, for the error.

    Raises:
        InputError: no such file, not a state dict of plain tensors, one of another network, or one of values that
            no network can have (`check_values`); it lists what is missing, unexpected and wrongly shaped.
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
        listed = "; ".join(f"{kind}: {_some(names)}" for kind, names in problems.items() if names)
        described = field.rpartition(".")[0] or "teacher"
        remedy = f"it does not fit ({listed}): name its network in {described}.network and {described}.arguments"
        raise InputError(field, value, f"a checkpoint of {name}", remedy)
    fitting = {key: state[key] for key in own if key in state and state[key].shape == own[key].shape}
    numbers = {key: each for key, each in fitting.items() if not key.endswith(COUNTERS)}
    types = [f"{key} {_kind(each)} for {_kind(own[key])}" for key, each in numbers.items() if not _fits(each, own[key])]
    if types:
        remedy = f"it holds {_some(types)}: save them as these"
        raise InputError(field, value, f"a checkpoint of {name} in its types of numbers", remedy)
    check_values(network, {key: each.to(own[key].dtype) for key, each in numbers.items()}, field, value)
    network.load_state_dict(fitting, strict=False)


def check_values(network: nn.Module, state: Mapping[str, Any], field: str, value: str) -> None:
    """Check that a network can compute with the values of a state dict, its own or loaded.

    Args:
        field, value: the setting that the error names.

    Raises:
        InputError: there is NaN or infinity among weights or statistics (other buffers, such as masks, may hold
            infinity), negative variances, complex or quantized numbers, or nothing but zeros.
    """
    learned = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    problem = next((f"{key} {wrong}" for key, each in state.items() if (wrong := _wrong(key, each, learned))), "")
    numbers = [each for each in state.values() if isinstance(each, Tensor) and each.is_floating_point()]
    if not problem and numbers and not any(each.any() for each in numbers):
        problem = "it holds nothing but zeros"
    if problem:
        raise InputError(field, value, "of finite real weights, and variances >= 0", f"{problem}: take another one")


def _wrong(key: str, value: Any, learned: Container[str]) -> str:
    if not _is_plain(value):
        return f"is {_called(value)}"
    if value.is_complex():
        return f"is {_kind(value)}"
    if (key in learned or key.endswith(STATISTICS)) and not value.isfinite().all():
        return "holds NaN or infinity"
    return "holds negative variances" if key.endswith("running_var") and (value < 0).any() else ""


def _fits(value: Tensor, own: Tensor) -> bool:
    """Return whether numbers of one type can replace those of another: reals for reals, integers for integers."""
    if value.is_complex() != own.is_complex() or value.is_floating_point() != own.is_floating_point():
        return False
    try:
        value.flatten()[:1].to(own.dtype)
    except (RuntimeError, NotImplementedError):  # several numbers packed into one
        return False
    return True


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def read_state(path: str | Path, field: str) -> dict[str, Tensor]:
    """Read the state dict in a file, executing nothing; raises InputError, and errors of `downloaded`."""
    where = path
    if ON_THE_WEB.match(str(path)):
        url, _, checksum = str(path).partition(CHECKSUM)
        where = downloaded(url, checksum.lower(), field)
    try:
        folder, name = file_at(str(where))
        if not folder.has(name):
            raise InputError(field, str(path), WEIGHTS, "there is no such file")
        content = folder.read(name)
        if name.endswith(".safetensors"):
            found: Any = safetensors.torch.load(content)
        else:
            _check_archive(content)
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
        raise InputError(field, str(path), WEIGHTS, remedy) from error
    outer: list[Any] = []
    while isinstance(found, Mapping):
        key = next((key for key in NESTINGS if isinstance(found.get(key), Mapping)), None)
        if key is None:
            break
        outer.append(found)
        found = found[key]
        if any(found is each for each in outer):
            raise InputError(field, str(path), WEIGHTS, f"it holds {key}: a dictionary that it lies in itself")
    if not isinstance(found, Mapping) or not found or not all(_is_plain(v) for v in found.values()):
        kind = "nothing" if isinstance(found, Mapping) and not found else f"something else ({_described(found)})"
        raise InputError(field, str(path), WEIGHTS, f"it holds {kind}")
    return {str(name): value for name, value in found.items()}


def save_network(network: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors, through a temporary file; raises OSError."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_atomically(path, lambda temporary: temporary.write_bytes(safetensors.torch.save(state)))


def _without_prefixes(state: Mapping[str, Tensor], own: set[str]) -> Mapping[str, Tensor]:
    """Strip prefixes that wrappers put before all names, unless the network's own names begin like that."""
    while not own & set(state):
        names = [name for name in state if name not in COUNTERS]
        prefix = next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), None)
        if prefix is None:
            return state
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _check_archive(content: bytes) -> None:
    """Raise ValueError for a zip file that is a program, or far larger unpacked, as none by torch.save is."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        unpacked = sum(info.file_size for info in file.infolist())
        names = {name.rpartition("/")[2] for name in file.namelist()}
    if "constants.pkl" in names:
        remedy = "where you trust it, load it by torch.jit.load and save its state dict"
        raise ValueError(f"it is a TorchScript archive, which is a program: {remedy}")
    if unpacked > len(content) + COMPRESSED:
        raise ValueError(
            f"it unpacks to {in_words(unpacked)} from {in_words(len(content))}, and torch.save does not compress: "
            "save its state dict again"
        )


def _is_plain(value: Any) -> bool:
    """Return whether an object is a dense tensor with all its values."""
    return isinstance(value, Tensor) and not _peculiarity(value)


def _peculiarity(value: Tensor) -> str:
    if value.is_quantized:
        return "a quantized tensor"
    return "a tensor without values" if value.is_meta else "" if value.layout == torch.strided else "a sparse tensor"


def _described(found: Any) -> str:
    if isinstance(found, Mapping):
        others = {name: value for name, value in found.items() if not _is_plain(value)}
        return _some([f"{name}: {_called(value)}" for name, value in others.items()])
    return type(found).__name__


def _called(value: Any) -> str:
    return _peculiarity(value) if isinstance(value, Tensor) else type(value).__name__


def _reason(error: Exception) -> str:
    """Return a library's reason for not reading a file, without torch's advice to execute it."""
    said = first_line(error)
    return "it is no checkpoint, or a damaged one" if "weights_only" in said else said


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
