"""Class embeddings: a fixed vector per class that conditions a generator network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from raydream.config import TeacherConfig
from raydream.errors import InputError, first_line
from raydream.networks.observed import last_layer

FIELD = "synthesis.generator.embeddings"


def class_embeddings(network: nn.Module, config: TeacherConfig, source: str) -> Tensor:
    """Return the embedding of each class, float32 [K,D] on the CPU.

    Args:
        network: the teacher's.
        source: `classifier`: the rows of the network's last layer, in which classes that look alike lie close
            together; `orthogonal`: the rows of the identity, in which all are equally far apart; otherwise the path
            of an .npy file with K rows of numbers, of a text encoder for example.

    Raises:
        InputError: the last layer cannot be identified, or the file cannot be read or does not hold K finite rows.
    """
    if source == "orthogonal":
        return torch.eye(config.classes)
    if source == "classifier":
        try:
            layer = network.get_submodule(last_layer(network, config.classes))
        except ValueError as error:
            allowed = f"orthogonal, or an .npy file, for {config.network}, whose last layer cannot be identified"
            raise InputError(FIELD, source, allowed, str(error)) from error
        weight: Tensor = layer.weight  # type: ignore[assignment]
        return weight.detach().flatten(1).float().cpu()
    return _read(Path(source), config.classes)


def _read(path: Path, classes: int) -> Tensor:
    allowed = f"classifier, orthogonal, or an .npy file of {classes} rows of finite numbers, one row for each class"
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(FIELD, str(path), allowed, first_line(error)) from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or len(found) != classes or found.dtype.kind not in "fiu":
        is_here = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "an archive of arrays"
        raise InputError(FIELD, str(path), allowed, f"the file holds {is_here}")
    if not np.isfinite(found).all():
        raise InputError(FIELD, str(path), allowed, "the file holds NaN or infinity")
    return torch.from_numpy(found.astype(np.float32))
