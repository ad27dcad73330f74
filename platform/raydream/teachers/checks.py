"""Can this network be this teacher, and be inverted? Asked before anything starts."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raydream.config import SynthesisConfig, TeacherConfig
from raydream.errors import InputError, first_line
from raydream.losses.dafl import FeatureNetwork
from raydream.losses.feature_statistics import ObservedNetwork, batch_norm_layers
from raydream.synthesis.stages import stages_of

NEED_STATISTICS = ("deep_inversion", "adaptive", "fast")


def check_network(network: nn.Module, config: TeacherConfig, synthesis: SynthesisConfig, trained: bool) -> None:
    """See that a network can be this teacher and be inverted like this; restores its mode.

    Args:
        trained: whether its weights are loaded; fresh ones have fresh BN statistics.

    Raises:
        InputError: its input or output is not as described, or it has no BN layers with running statistics of real
            data for a method that needs them.
    """
    check_shapes(network, config)
    for index, stage in enumerate(stages_of(synthesis, config.input_shape[1:])):
        if stage.size != config.input_shape[1:]:
            field = f"synthesis.stages.{index}.size"
            probe(network, config, field, list(stage.size), training=False, size=stage.size)
    if synthesis.method in NEED_STATISTICS:
        _check_statistics(network, config, synthesis.method, trained)
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
    """The shape of a network's answer to two black images; leaves no trace in the network.

    Args:
        field, value: what to blame.
        training: in which mode.
        size: height and width of the images; None: the teacher's.

    Raises:
        InputError: it raised, or answered with something else than a tensor.
    """
    copied = copy.deepcopy(network) if training else network
    modes = [(module, module.training) for module in network.modules()]
    shape = (config.input_shape[0], *(size or config.input_shape[1:]))
    allowed = f"of a network that maps images {shape} to logits"
    try:
        with torch.no_grad():
            answer = copied.train(training)(torch.zeros(2, *shape))
    except Exception as error:  # whatever somebody's network raises
        raise InputError(field, value, allowed, f"a probe failed: {first_line(error)}") from error
    finally:
        for module, mode in modes:
            module.training = mode
    if not isinstance(answer, Tensor):
        raise InputError(field, value, allowed, f"a probe gave a {type(answer).__name__}")
    return tuple(answer.shape)


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
