"""Checks, before anything starts, that a teacher can be inverted as configured."""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raydream.config import METHODS, SynthesisConfig, TeacherConfig
from raydream.config.synthesis import one_of
from raydream.errors import InputError, first_line
from raydream.losses.objective import Objective
from raydream.networks.batch_norm import batch_norm_layers
from raydream.networks.observed import ObservedNetwork, last_layer
from raydream.networks.user_code import contained
from raydream.synthesis.embeddings import class_embeddings
from raydream.synthesis.stages import stages_of
from raydream.teachers.checks import answer_of, check_shapes, frozen, noise, probe


def check_network(network: nn.Module, config: TeacherConfig, synthesis: SynthesisConfig, trained: bool) -> None:
    """Check that a network can serve as this teacher and be inverted with this configuration; restores its mode.

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
    if "feature" in synthesis.terms:
        _check_statistics(network, config, synthesis.method, trained)
    if METHODS[synthesis.method].embeds:
        class_embeddings(network, config, synthesis.generator.embeddings)
    _check_gradient(network, config, trained)
    objective = Objective(synthesis.terms, synthesis)
    for name in objective.of_activations():
        _check_last_layer(network, config, name, objective.weights[name])


def _check_gradient(network: nn.Module, config: TeacherConfig, trained: bool) -> None:
    """Check that a network's output has a usable gradient at images of noise.

    Args:
        trained: whether a gradient is required; fresh networks may start with a last layer of zeros.

    Raises:
        InputError: the answer is detached from the images, or its gradient there is not finite, or zero.
    """
    refused = functools.partial(
        InputError, "teacher.network", config.network, "a network whose answers have a gradient at its images"
    )
    images = noise(2, config.input_shape).requires_grad_()
    with frozen(network):
        answer = answer_of(network, images.clone(), "a probe", refused)  # a copy, to be changed in place
    if not answer.requires_grad:
        raise refused("its answer is detached from the images")
    try:
        with contained():
            (gradient,) = torch.autograd.grad((answer * noise(2, answer.shape[1:])).sum(), images)
    except Exception as error:  # whatever a user's own backward raises
        raise refused(f"its gradient failed: {first_line(error)}") from error
    if not gradient.isfinite().all():
        raise refused("its gradient holds NaN or infinity")
    if trained and not gradient.any():
        raise refused("its gradient is zero everywhere")


def _check_statistics(network: nn.Module, config: TeacherConfig, method: str, trained: bool) -> None:
    layers = batch_norm_layers(network)
    with_statistics = [layer for layer in layers.values() if layer.running_mean is not None]
    others = one_of([name for name, each in METHODS.items() if "feature" not in each.terms])
    if not with_statistics:
        allowed = f"{others} for {config.network}, which {_why_none(network, bool(layers))}"
        remedy = (
            "choose one of these, a teacher with batch normalization that keeps running statistics, or name images to "
            "gather statistics from (teacher.statistics)"
        )
        raise InputError("synthesis.method", method, allowed, remedy)
    if trained and all(_is_fresh(layer.state_dict()) for layer in with_statistics):
        allowed = f"{others} for this checkpoint, whose BN statistics were never trained (all zeros and ones)"
        remedy = "choose one of these, or a checkpoint of a trained network"
        raise InputError("synthesis.method", method, allowed, remedy)
    try:
        with torch.no_grad():
            ObservedNetwork(network, statistics=True)(torch.zeros(2, *config.input_shape))
    except ValueError as error:
        remedy = f"{error}: leave them out of the network"
        raise InputError("teacher.network", config.network, "a network whose BN layers all run", remedy) from error


def _check_last_layer(network: nn.Module, config: TeacherConfig, term: str, weight: float) -> None:
    try:
        with torch.no_grad():
            before = last_layer(network, config.classes)
            ObservedNetwork(network, before=before)(torch.zeros(2, *config.input_shape))
    except ValueError as error:
        allowed = f"0 for {config.network}, whose last layer cannot be identified"
        remedy = f"{error}: do without that term"
        raise InputError(f"synthesis.coefficients.{term}", weight, allowed, remedy) from error


def _is_fresh(state: Mapping[str, Tensor]) -> bool:
    return bool((state["running_mean"] == 0).all() and (state["running_var"] == 1).all())


def _why_none(network: nn.Module, has_layers: bool) -> str:
    if has_layers:
        return "has BN layers that keep no running statistics (track_running_stats=False)"
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.modules.conv._ConvNd)]
    normalized = any(isinstance(layer, nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d) for layer in network.modules())
    if convolutions and not normalized and all(layer.bias is not None for layer in convolutions):
        return (
            "has no BN layers but biases in all its convolutions: BN was perhaps folded into them for inference, and "
            "the network from before that can be inverted"
        )
    return "has no BN layers"
