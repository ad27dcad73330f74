"""Networks by name: the project's own, torchvision's and timm's, and users' own as `package.module:factory`.

A factory of this project takes `input_channels` and `classes` (and its own keyword arguments) and returns a network
that maps images [N,C,H,W] to logits [N,K].
"""

import difflib
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from raydream.config import StudentConfig, TeacherConfig
from raydream.config.network_names import PRUNED, QUANTIZED, TIMM, check_network_name, not_imported
from raydream.config.teacher import TORCHVISION
from raydream.errors import InputError, first_line
from raydream.networks.digits import digits_network
from raydream.networks.mobilenet import mobilenet_v2
from raydream.networks.pruned import parse_widths, resized
from raydream.networks.quantized import parse_bits, quantized
from raydream.networks.resnet import RESNETS
from raydream.networks.user_code import as_declared, contained
from raydream.networks.vgg import VGGS
from raydream.networks.wide_resnet import WIDE_RESNETS

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "digits": digits_network,
    **RESNETS,
    **VGGS,
    **WIDE_RESNETS,
    "cifar_mobilenet_v2": mobilenet_v2,
}
"""factories of this project's networks, in the order of `network_names.BUILT_IN`"""


def build_teacher(config: TeacherConfig, field: str = "teacher") -> nn.Module:
    """Build the teacher's network with fresh weights; raises as `build_network` does."""
    return build_network(config.network, config.arguments, config.input_shape[0], config.classes, field)


def build_student(student: StudentConfig, teacher: TeacherConfig) -> nn.Module:
    """Build the student's network with fresh weights, for the teacher's images; raises as `build_network` does."""
    return build_network(student.network, student.arguments, teacher.input_shape[0], teacher.classes, "student")


def parameters_of(network: nn.Module) -> int:
    """Count the numbers that a network learns; buffers such as BN statistics do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def build_network(
    name: str, arguments: Mapping[str, Any], input_channels: int, classes: int, field: str = "network"
) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: a key of `NETWORKS`, `torchvision:NAME`, `timm:NAME`, `package.module:factory`, or a key of `DERIVED`.
        arguments: keyword arguments for the factory. A network of this project is also given `input_channels` and
            `classes`, torchvision's `num_classes`, timm's `num_classes` and `in_chans`; a user's own factory gets
            `arguments` alone. It is given a copy, with tuples where it declares them (`user_code.as_declared`).
        field: the option's name, for the error.

    Raises:
        InputError: unknown name, a path that cannot be imported, arguments that the factory does not take, a factory
            of something else, or code that ends the process or changes its state (`user_code.contained`).
    """
    factory: Callable[..., nn.Module]
    if name in NETWORKS or name in DERIVED:
        factory = NETWORKS[name] if name in NETWORKS else DERIVED[name]
        keywords = {"input_channels": input_channels, "classes": classes, **arguments}
    elif name.startswith(TORCHVISION):
        factory, keywords = _torchvision_factory(name, f"{field}.network"), {"num_classes": classes, **arguments}
    elif name.startswith(TIMM):
        keywords = {"num_classes": classes, "in_chans": input_channels, **arguments}
        factory = _timm_factory(name, f"{field}.network")
    else:
        factory, keywords = _import_factory(name, f"{field}.network"), dict(arguments)
    try:
        with contained():
            network = factory(**as_declared(factory, keywords))
    except Exception as error:  # whatever a user's factory raises
        remedy = f"the factory says: {first_line(error)}"
        raise InputError(f"{field}.arguments", dict(arguments), f"what {name} takes", remedy) from error
    if not isinstance(network, nn.Module):
        remedy = f"it returned a {type(network).__name__}"
        raise InputError(f"{field}.network", name, "a factory of torch.nn.Module", remedy)
    check_python(network, f"{field}.network", name)
    return network


def check_python(network: nn.Module, field: str, name: str) -> None:
    """Raise InputError for a network that is TorchScript: its layers cannot be observed, copied or changed.

    Args:
        field, name: of the option and the network, for the error.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        allowed = "a network that is written in Python"
        raise InputError(field, name, allowed, "it is a ScriptModule: build the network that it was scripted from")


def _pruned(input_channels: int, classes: int, *, of: str, widths: str, **arguments: Any) -> nn.Module:
    """Build a network `of` these arguments and reduce its layers to these widths (`networks/pruned.py`)."""
    return resized(build_network(of, arguments, input_channels, classes), parse_widths(widths))


def _quantized(input_channels: int, classes: int, *, network: str, bits: str, **arguments: Any) -> nn.Module:
    """Build a `network` of these arguments whose layers compute with these bits (`networks/quantized.py`)."""
    return quantized(build_network(network, arguments, input_channels, classes), parse_bits(bits))


DERIVED: dict[str, Callable[..., nn.Module]] = {PRUNED: _pruned, QUANTIZED: _quantized}
"""networks that are described by a change to another one"""


def _torchvision_factory(name: str, field: str) -> Callable[..., nn.Module]:
    import torchvision  # here, as it takes a second, and most runs need none of it

    short = name.removeprefix(TORCHVISION)
    known = torchvision.models.list_models(module=torchvision.models)
    if short not in known:
        remedy = f"did you mean {_nearest(short, known)}?"
        raise InputError(field, name, "torchvision:NAME with a classification network of torchvision", remedy)
    own: dict[str, bool] = {}
    if short in ("googlenet", "inception_v3"):
        # Their auxiliary heads run in training only, and their BN layers would be missed. Their published weights,
        # which are in common use, need the input transformed; users who trained without set transform_input: false.
        own = {"aux_logits": False, "init_weights": False, "transform_input": True}
    return functools.partial(torchvision.models.get_model, short, weights=None, **own)


def _timm_factory(name: str, field: str) -> Callable[..., nn.Module]:
    try:
        import timm
    except ImportError as error:
        remedy = "timm is not installed: pip install 'raydream[timm]'"
        raise InputError(field, name, "a network whose library is installed", remedy) from error
    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        remedy = f"did you mean {_nearest(short, timm.list_models())}?"
        raise InputError(field, name, "timm:NAME with a network of timm", remedy)
    return functools.partial(timm.create_model, short, pretrained=False)


def _nearest(name: str, known: list[str]) -> str:
    return " or ".join(difflib.get_close_matches(name, known, 3, 0.0))


def _import_factory(path: str, field: str) -> Callable[..., Any]:
    check_network_name(path, field)
    module, _, attribute = path.partition(":")
    try:
        with contained():
            factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a user's module raises
        raise not_imported(path, field, first_line(error)) from error
    return factory
