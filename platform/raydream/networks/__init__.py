"""The small networks that the project itself offers, by name; any other is named `package.module:factory`.

A factory takes `input_channels` and `classes` (and its own keyword arguments) and returns a network that maps images
[N,C,H,W] to logits [N,K].
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from raydream.config import DistillConfig, TeacherConfig
from raydream.errors import InputError, first_line
from raydream.networks.digits import digits_network
from raydream.networks.resnet import RESNETS
from raydream.networks.vgg import VGGS
from raydream.networks.wide_resnet import WIDE_RESNETS

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "digits": digits_network,
    **RESNETS,
    **VGGS,
    **WIDE_RESNETS,
}


def build_teacher(config: TeacherConfig) -> nn.Module:
    """The teacher's network with fresh weights; raises as `build_network` does."""
    return build_network(config.network, config.arguments, config.input_shape[0], config.classes, "teacher")


def build_student(config: DistillConfig) -> nn.Module:
    """The student's network with fresh weights, for the teacher's images; raises as `build_network` does."""
    channels, classes = config.teacher.input_shape[0], config.teacher.classes
    return build_network(config.student.network, config.student.arguments, channels, classes, "student")


def build_network(
    name: str, arguments: Mapping[str, Any], input_channels: int, classes: int, field: str = "network"
) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: a key of `NETWORKS`, or `package.module:factory`.
        arguments: keyword arguments for the factory. A network of this project is also given `input_channels` and
            `classes`; somebody else's factory gets `arguments` alone.
        field: the option's name, for the error.

    Raises:
        InputError: unknown name, a path that cannot be imported, or arguments that the factory does not take.
    """
    if name in NETWORKS:
        factory, keywords = NETWORKS[name], {"input_channels": input_channels, "classes": classes, **arguments}
    else:
        factory, keywords = _import_factory(name, f"{field}.network"), dict(arguments)
    try:
        network = factory(**keywords)
    except Exception as error:  # whatever somebody's factory raises
        remedy = f"the factory says: {first_line(error)}"
        raise InputError(f"{field}.arguments", dict(arguments), f"what {name} takes", remedy) from error
    if not isinstance(network, nn.Module):
        remedy = f"it returned a {type(network).__name__}"
        raise InputError(f"{field}.network", name, "a factory of torch.nn.Module", remedy)
    return network


def _import_factory(path: str, field: str) -> Callable[..., Any]:
    allowed = f"one of {', '.join(NETWORKS)}, or package.module:factory"
    module, _, attribute = path.partition(":")
    if not attribute:
        raise InputError(field, path, allowed, "name a known network, or where to import yours from")
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(field, path, allowed, f"importing it failed ({error}); is it on PYTHONPATH?") from error
    return factory
