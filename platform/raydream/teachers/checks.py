"""Can this network be this teacher, and be inverted? Asked before anything starts."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from raydream.config import SynthesisConfig, TeacherConfig
from raydream.errors import InputError, first_line
from raydream.losses.dafl import FeatureNetwork
from raydream.losses.feature_statistics import ObservedNetwork, batch_norm_layers
from raydream.networks.user_code import contained
from raydream.synthesis.stages import stages_of

NEED_STATISTICS = ("deep_inversion", "adaptive", "fast")


def check_network(network: nn.Module, config: TeacherConfig, synthesis: SynthesisConfig, trained: bool) -> None:
    """See that a network can be this teacher and be inverted like this; restores its mode.

    Args:
        trained: whether its weights are loaded; fresh ones have fresh BN statistics.

    Raises:
        InputError: its input or output is not as described, it has no gradient at its images, or no BN layers with
            running statistics of real data for a method that needs them.
    """
    check_shapes(network, config)
    for index, stage in enumerate(stages_of(synthesis, config.input_shape[1:])):
        if stage.size != config.input_shape[1:]:
            field = f"synthesis.stages.{index}.size"
            probe(network, config, field, list(stage.size), training=False, size=stage.size)
    if synthesis.method in NEED_STATISTICS:
        _check_statistics(network, config, synthesis.method, trained)
    _check_gradient(network, config, trained)
    if "activation" in synthesis.terms and synthesis.coefficients.activation:
        _check_last_layer(network, config, synthesis.coefficients.activation)


def check_shapes(network: nn.Module, config: TeacherConfig, field: str = "teacher") -> None:
    """See that a network maps images of the stated shape to logits of as many classes; raises InputError.

    Args:
        field: name of the option that describes the network, for the error.
    """
    shape = probe(network, config, f"{field}.input_shape", config.input_shape, training=False)
    if shape != (2, config.classes):
        allowed = f"the number of logits of {config.network}"
        raise InputError(f"{field}.classes", config.classes, allowed, f"a probe of two images gave {shape}")


def check_pupil(student: nn.Module, teacher: TeacherConfig, name: str) -> None:
    """See that a student takes the teacher's images and has its classes, as it learns and after; raises InputError.

    Args:
        name: of the student's network, for the error.
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
    """The shape of a network's answer to two images of noise; leaves no trace in the network.

    Args:
        field, value: what to blame.
        training: in which mode; in eval mode it is given one image as well, and answers as for two.
        size: height and width of the images; None: the teacher's.

    Raises:
        InputError: it raised, ended the process or changed its state (`user_code.contained`), or answered with
            something else than a tensor of finite real numbers, which its weights have a part in while it trains.
    """
    shape = (config.input_shape[0], *(size or config.input_shape[1:]))
    refused = functools.partial(InputError, field, value, f"of a network that maps images {shape} to logits")
    if training:
        answer = _answer(copy.deepcopy(network).train(), _noise(2, shape), "a probe", refused)
        if not answer.requires_grad:
            raise refused("its answer is detached from its weights, which can learn nothing")
        return tuple(answer.shape)
    with _frozen(network):
        answer = _answer(network, _noise(2, shape), "a probe", refused)
        if answer.shape[:1] == (2,):
            one = _answer(network, _noise(1, shape), "a probe of one image", refused)
            if one.shape != (1, *answer.shape[1:]):
                raise refused(f"a probe of one image gave {tuple(one.shape)}")
    return tuple(answer.shape)


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients of weights for a `with` block: what a network keeps of its weights has no graph."""
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


def _noise(count: int, shape: tuple[int, ...]) -> Tensor:
    """[N,C,H,W] of N(0, 1), which inversions start from; the same at each call."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def _answer(network: nn.Module, images: Tensor, what: str, refused: Callable[[str], InputError]) -> Tensor:
    """What a network answers to images, with a graph for gradients; raises InputError as `probe` does."""
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


def _check_gradient(network: nn.Module, config: TeacherConfig, trained: bool) -> None:
    """See that noise can be moved by what a network says of it.

    Args:
        trained: whether there has to be a gradient; fresh networks may begin with a last layer of zeros.

    Raises:
        InputError: the answer is detached from the images, or its gradient there is not finite, or zero.
    """
    refused = functools.partial(
        InputError, "teacher.network", config.network, "a network whose answers have a gradient at its images"
    )
    images = _noise(2, config.input_shape).requires_grad_()
    with _frozen(network):
        answer = _answer(network, images.clone(), "a probe", refused)  # a copy, to be changed in place
    if not answer.requires_grad:
        raise refused("its answer is detached from the images")
    try:
        with contained():
            (gradient,) = torch.autograd.grad((answer * _noise(2, answer.shape[1:])).sum(), images)
    except Exception as error:  # whatever a user's own backward raises
        raise refused(f"its gradient failed: {first_line(error)}") from error
    if not gradient.isfinite().all():
        raise refused("its gradient holds NaN or infinity")
    if trained and not gradient.any():
        raise refused("its gradient is zero everywhere")


def _check_statistics(network: nn.Module, config: TeacherConfig, method: str, trained: bool) -> None:
    layers = batch_norm_layers(network)
    with_statistics = [layer for layer in layers.values() if layer.running_mean is not None]
    if not with_statistics:
        allowed = f"noise, deepdream or dafl for {config.network}, which {_why_none(network, bool(layers))}"
        remedy = "choose one of these, or a teacher with batch normalisation that keeps running statistics"
        raise InputError("synthesis.method", method, allowed, remedy)
    if trained and all(_is_fresh(layer.state_dict()) for layer in with_statistics):
        allowed = (
            "noise, deepdream or dafl for this checkpoint, whose BN statistics were never trained (all zeros and ones)"
        )
        raise InputError(
            "synthesis.method", method, allowed, "choose one of these, or a checkpoint of a trained network"
        )
    try:
        with torch.no_grad():
            ObservedNetwork(network)(torch.zeros(2, *config.input_shape))
    except ValueError as error:
        remedy = f"{error}: leave them out of the network"
        raise InputError("teacher.network", config.network, "a network whose BN layers all run", remedy) from error


def _check_last_layer(network: nn.Module, config: TeacherConfig, weight: float) -> None:
    try:
        with torch.no_grad():
            FeatureNetwork(network, config.classes)(torch.zeros(2, *config.input_shape))
    except ValueError as error:
        allowed = f"0 for {config.network}, whose last layer cannot be told"
        raise InputError(
            "synthesis.coefficients.activation", weight, allowed, f"{error}: do without that term"
        ) from error


def _is_fresh(state: Mapping[str, Tensor]) -> bool:
    return bool((state["running_mean"] == 0).all() and (state["running_var"] == 1).all())


def _why_none(network: nn.Module, has_layers: bool) -> str:
    if has_layers:
        return "has BN layers that keep no running statistics (track_running_stats=False)"
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.modules.conv._ConvNd)]
    normalised = any(isinstance(layer, nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d) for layer in network.modules())
    if convolutions and not normalised and all(layer.bias is not None for layer in convolutions):
        return (
            "has no BN layers but biases in all its convolutions: BN was perhaps folded into them for inference, and "
            "the network from before that can be inverted"
        )
    return "has no BN layers"
