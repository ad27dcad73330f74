"""Networks by name and their weights by path, checked before torch is loaded: what files and names decide."""

import contextlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raydream.config.teacher import TORCHVISION, TeacherConfig
from raydream.errors import InputError

TIMM = "timm:"
"""prefix of the names of timm's networks"""
PRUNED = "pruned"
"""a pruned network: the one it is left `of`, its layers' `widths`, and its other arguments"""
QUANTIZED = "quantized"
"""a quantized `network`: its layers' `bits`, and its other arguments"""
BUILT_IN = (
    "digits",
    "cifar_resnet20",
    "cifar_resnet32",
    "cifar_resnet44",
    "cifar_resnet56",
    "cifar_resnet18",
    "cifar_resnet34",
    "cifar_vgg11_bn",
    "cifar_vgg16_bn",
    "cifar_wrn16_1",
    "cifar_wrn40_2",
    "cifar_mobilenet_v2",
)
"""names of this project's networks, whose factories are in `raydream.networks.NETWORKS`"""
NETWORK = f"one of {', '.join(BUILT_IN)}, torchvision:NAME, timm:NAME, or package.module:factory"
WEIGHTS = "a file with a state dict (.safetensors, or torch.save's)"
"""what a network and its weights may be, for errors"""


def check_networks(config: Any) -> None:
    """Check the networks and the weights that the settings of a new run name, as far as files and names decide.

    Args:
        config: of any job; its sections `teacher`, `student` and `verifiers` are checked, as far as it has them.

    Raises:
        InputError: see `check_network_name`; or a path of weights where there is no file.
    """
    teacher, verifiers = getattr(config, "teacher", None), getattr(config, "verifiers", ())
    named = {"teacher": teacher} | {f"verifiers.{index}": each for index, each in enumerate(verifiers)}
    for field, described in named.items():
        if described is not None:
            check_network_name(described.network, f"{field}.network")
            _check_weights(described, f"{field}.checkpoint")
    student = getattr(config, "student", None)
    if student is not None and student.network != "teacher":
        check_network_name(student.network, "student.network")


def check_network_name(name: str, field: str) -> None:
    """Check a network's name without importing anything.

    Args:
        field: the option's name, for the error.

    Raises:
        InputError: it is no known name, or that of a factory in a package that does not exist.
    """
    if name in (*BUILT_IN, PRUNED, QUANTIZED) or name.startswith((TORCHVISION, TIMM)):
        return
    module, _, attribute = name.partition(":")
    if not attribute:
        raise InputError(field, name, NETWORK, "name a known network, or where to import yours from")
    package = module.partition(".")[0]
    # Only the package is looked for: to find a module in it, Python would run the package's own code.
    if package.isidentifier() and package not in sys.modules and find_spec(package) is None:
        raise not_imported(name, field, f"No module named {package!r}")


def not_imported(name: str, field: str, reason: str) -> InputError:
    """Return the error for a user's factory that cannot be imported."""
    return InputError(field, name, NETWORK, f"importing it failed ({reason}); is it on PYTHONPATH?")


def _check_weights(teacher: TeacherConfig, field: str) -> None:
    """Raise InputError for a path without a file; URLs and names of published weights are checked where they load."""
    path = teacher.checkpoint
    if path is None or "://" in path or teacher.network.startswith((TORCHVISION, TIMM)):
        return
    with contextlib.suppress(OSError):  # which reading it reports
        if not Path(path).is_file():
            raise InputError(field, path, WEIGHTS, "there is no such file")
