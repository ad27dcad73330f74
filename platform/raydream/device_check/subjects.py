"""The subjects of the check: networks with random weights and batches, in full size on a GPU and tiny elsewhere."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raydream.compute import use_device
from raydream.config import METHODS, CoefficientsConfig, StageConfig, SynthesisConfig, TeacherConfig
from raydream.networks import build_teacher
from raydream.teachers.teacher import Teacher, make_teacher

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BOTTLENECK = "raydream.device_check.bottleneck:bottleneck_network"


@dataclass(frozen=True)
class Subject:
    """A network and the batch that is made for it.

    Attributes:
        teacher: the network with random weights, equal in all processes, on the device.
        images: number of images in the batch.
        sizes: height and width of each stage; the last one is the teacher's.
        updates: number of updates in each stage.
    """

    teacher: Teacher
    images: int
    sizes: tuple[tuple[int, int], ...]
    updates: int

    @property
    def device(self) -> torch.device:
        return self.teacher.device

    @property
    def described(self) -> dict[str, object]:
        """Describe the subject for a step's figures."""
        return {"network": self.teacher.config.network, "images": self.images, "updates": self.updates}

    def targets(self) -> Tensor:
        """Return the targets, int64 [images] on the CPU: all classes in turn."""
        return torch.arange(self.images) % self.teacher.config.classes

    def synthesis(self, method: str = "deep_inversion", **changes: object) -> SynthesisConfig:
        """Return the settings of a batch in these stages, with each term of the objective in use."""
        stages = [*(StageConfig(size=size) for size in self.sizes[:-1]), StageConfig()]
        settings: dict[str, Any] = {
            "method": method,
            "batch_size": self.images,
            "iterations": self.updates,
            "stages": () if METHODS[method].learns else tuple(stages),
            "compile": "off",
            "coefficients": CoefficientsConfig(tv=1e-3, l2=1e-5, feature=1.0),
        }
        return SynthesisConfig(**settings | changes)


def find_subject(name: str, device: str) -> Subject:
    """Build a subject by name, after setting up this process for a device as a generator does.

    Args:
        name: resnet20 (ResNet-20 for CIFAR, 256 images as in the paper), resnet50 (84 images in two stages) or pooling
            (a ResNet-50's stem with its max pooling, and its first block); without a GPU, a small network instead.
        device: as in `use_device`.
    """
    where = use_device(device, 1, 1)
    return (_full if where.type == "cuda" else _small)(name, where)


def _full(name: str, device: torch.device) -> Subject:
    if name == "resnet20":
        config = TeacherConfig(network="cifar_resnet20", input_shape=(3, 32, 32), **IMAGENET)
        return Subject(_teacher(config, device), 256, ((32, 32),), 400)
    if name == "resnet50":
        config = TeacherConfig(network=BOTTLENECK, input_shape=(3, 224, 224), classes=1000, **IMAGENET)
        return Subject(_teacher(config, device), 84, ((112, 112), (224, 224)), 100)
    return Subject(_bottleneck("1", 64, 64, device), 64, ((64, 64),), 100)


def _small(name: str, device: torch.device) -> Subject:
    if name == "resnet20":
        return Subject(_teacher(TeacherConfig(arguments={"width": 8}), device), 16, ((8, 8),), 10)
    sizes = ((16, 16), (32, 32)) if name == "resnet50" else ((32, 32),)
    return Subject(_bottleneck("", 4, 32, device), 6, sizes, 10)


def _bottleneck(blocks: str, width: int, side: int, device: torch.device) -> Teacher:
    arguments: dict[str, bool | int | float | str] = {"blocks": blocks, "width": width, "classes": 10}
    config = TeacherConfig(network=BOTTLENECK, arguments=arguments, input_shape=(3, side, side), **IMAGENET)
    return _teacher(config, device)


def _teacher(config: TeacherConfig, device: torch.device) -> Teacher:
    torch.manual_seed(0)
    return make_teacher(build_teacher(config), config).to(device)
