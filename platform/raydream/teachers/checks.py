"""Checks, before anything starts, that a network can serve as this teacher or as its student."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from raydream.config import TeacherConfig
from raydream.errors import InputError, first_line
from raydream.networks.user_code import contained


def check_shapes(network: nn.Module, config: TeacherConfig, field: str = "teacher") -> None:
    """Check that a network maps images of the stated shape to logits of the stated classes; raises InputError.

    Args:
        field: name of the option that describes the network, for the error.
    """
    shape = probe(network, config, f"{field}.input_shape", config.input_shape, training=False)
    if shape != (2, config.classes):
        allowed = f"the number of logits of {config.network}"
        raise InputError(f"{field}.classes", config.classes, allowed, f"a probe of two images gave {shape}")


def check_pupil(student: nn.Module, teacher: TeacherConfig, name: str) -> None:
    """Check that a student fits the teacher's images and classes, in training and in eval mode; raises InputError.

    Args:
        name: the student's network, for the error.
    """
    for training in (False, True):
        shape = probe(student, teacher, "student.network", name, training)
        if shape != (2, teacher.classes):
            allowed = f"a network of {teacher.classes} classes, as the teacher"
            raise InputError("student.network", name, allowed, f"a probe of two images gave {shape}")


def probe(
    network: nn.Module,
    config: TeacherConfig,
    field: str,
    value: object,
    training: bool,
    size: tuple[int, int] | None = None,
) -> tuple[int, ...]:
    """Return the shape of a network's answer to two images of noise; restores the network's state.

    Args:
        field, value: the setting that the error names.
        training: whether in training mode; in eval mode it also gets one image, and must answer as for two.
        size: height and width of the images; None: the teacher's.

    Raises:
        InputError: it raised, ended the process or changed its state (`user_code.contained`), or its answer is not a
            tensor of finite real numbers that, in training, depends on its weights.
    """
    shape = (config.input_shape[0], *(size or config.input_shape[1:]))
    refused = functools.partial(InputError, field, value, f"of a network that maps images {shape} to logits")
    if training:
        answer = answer_of(copy.deepcopy(network).train(), noise(2, shape), "a probe", refused)
        if not answer.requires_grad:
            raise refused("its answer is detached from its weights, which can learn nothing")
        return tuple(answer.shape)
    with frozen(network):
        answer = answer_of(network, noise(2, shape), "a probe", refused)
        if answer.shape[:1] == (2,):
            one = answer_of(network, noise(1, shape), "a probe of one image", refused)
            if one.shape != (1, *answer.shape[1:]):
                raise refused(f"a probe of one image gave {tuple(one.shape)}")
    return tuple(answer.shape)


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Put a network in eval mode without weight gradients for a `with` block, so that its caches have no graph."""
    modes = [(module, module.training) for module in network.modules()]
    asked = [(weight, weight.requires_grad) for weight in network.parameters()]
    try:
        network.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, wanted in asked:
            weight.requires_grad_(wanted)


def noise(count: int, shape: tuple[int, ...]) -> Tensor:
    """Return [N,C,H,W] from N(0, 1), as inversions start from; the same at each call."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def answer_of(network: nn.Module, images: Tensor, what: str, refused: Callable[[str], InputError]) -> Tensor:
    """Return a network's answer to images, with a graph for gradients; raises InputError as `probe` does."""
    try:
        with torch.enable_grad(), contained():
            answer = network(images)
    except Exception as error:  # whatever a user's network raises
        raise refused(f"{what} failed: {first_line(error)}") from error
    if not isinstance(answer, Tensor):
        raise refused(f"{what} gave a {type(answer).__name__}")
    if not answer.is_floating_point():
        raise refused(f"{what} gave {str(answer.dtype).removeprefix('torch.')} numbers")
    if not answer.isfinite().all():
        raise refused(f"{what} gave NaN or infinity")
    return answer
