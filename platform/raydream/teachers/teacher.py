"""The teacher: a trained, frozen network with its input normalization."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from raydream.config import TeacherConfig
from raydream.networks import build_teacher
from raydream.networks.gathered import adopt_statistics
from raydream.teachers.normalization import Normalization


@dataclass(frozen=True)
class Teacher:
    """A frozen network in eval mode.

    Attributes:
        network: images [N,C,H,W] after normalization to logits [N,K]; no parameter asks for a gradient.
        normalization: from uint8 pixels to the network's input, and back.
        config: its description.
        fingerprint: fingerprint of its weights; equal weights have equal fingerprints, from any source.
    """

    network: nn.Module
    normalization: Normalization
    config: TeacherConfig
    fingerprint: str

    @property
    def device(self) -> torch.device:
        """Return the device that the network computes on."""
        return self.normalization.mean.device

    def to(self, device: torch.device) -> "Teacher":
        """Return the same teacher on another device (its network is moved, not copied)."""
        return replace(self, network=self.network.to(device), normalization=self.normalization.to(device))

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits, float32 [N,K], of uint8 images [N,C,H,W]."""
        logits: Tensor = self.network(self.normalization(images))
        return logits.float()


def freeze(network: nn.Module) -> nn.Module:
    """Put a network in eval mode without gradients for its weights; gradients still reach the input."""
    return network.eval().requires_grad_(False)


def make_teacher(network: nn.Module, config: TeacherConfig) -> Teacher:
    """Freeze a trained network and fingerprint it."""
    normalization = Normalization(config.mean, config.std)
    return Teacher(freeze(network), normalization, config, fingerprint(to_arrays(network)))


def to_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Copy a network's state to plain arrays, which pass through the object store without torch."""
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}


def load_arrays(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Load a state from `to_arrays`; copies, because arrays from the object store are read-only."""
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})


def teacher_from_arrays(config: TeacherConfig, arrays: Mapping[str, np.ndarray]) -> Teacher:
    """Rebuild a teacher from its description and weights, on a machine without the checkpoint."""
    network = build_teacher(config)
    if config.statistics:
        adopt_statistics(network, {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    load_arrays(network, arrays)
    return make_teacher(network, config)


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return 16 hexadecimal digits over names, shapes, types and values."""
    parts: list[bytes] = []
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        parts += [f"{name}{value.shape}{value.dtype}".encode(), value.tobytes()]
    return fingerprint_of(parts)


def fingerprint_of(parts: Iterable[bytes]) -> str:
    """Return 16 hexadecimal digits over all parts in turn."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
