"""Widening: add outputs to a trained network."""

import copy

import torch
from torch import nn

from raydream.config import TeacherConfig
from raydream.errors import InputError
from raydream.networks import build_teacher
from raydream.networks.observed import last_layer
from raydream.seeds import derive_seed


def output_layer(network: nn.Module, classes: int) -> str:
    """Return the name of the layer that makes the logits, see `last_layer`.

    Raises:
        InputError: the network has none.
    """
    try:
        return last_layer(network, classes)
    except ValueError as error:
        allowed = f"a network whose last layer is linear, or a convolution, with {classes} outputs"
        remedy = "no other output layer can be widened"
        raise InputError("teacher.network", type(network).__name__, allowed, remedy) from error


def widened(network: nn.Module, classes: int, new: int, seed: int) -> nn.Module:
    """Copy a network with further outputs; its first ones stay equal to the bit.

    Args:
        classes: K0, the number of existing outputs.
        new: number of added outputs, with fresh weights.
        seed: the seed of these weights.

    Raises:
        InputError: see `output_layer`.
    """
    name = output_layer(network, classes)
    wide = copy.deepcopy(network)
    old = wide.get_submodule(name)
    assert isinstance(old, nn.Linear | nn.Conv2d)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer: nn.Module
        if isinstance(old, nn.Linear):
            layer = nn.Linear(old.in_features, classes + new, old.bias is not None)
        else:
            how = {
                name: getattr(old, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
            }
            layer = nn.Conv2d(old.in_channels, classes + new, bias=old.bias is not None, **how)
    layer = layer.to(old.weight.device, old.weight.dtype)
    with torch.no_grad():
        for wide_value, value in zip(layer.parameters(), old.parameters(), strict=True):
            wide_value[:classes] = value
    parent, _, attribute = name.rpartition(".")
    setattr(wide.get_submodule(parent), attribute, layer.train(old.training))
    return wide


def build_widened(config: TeacherConfig, classes: int) -> nn.Module:
    """Build the teacher's network with this number of outputs, to load weights into; raises InputError."""
    network = build_teacher(config)
    if classes == config.classes:
        return network
    return widened(network, config.classes, classes - config.classes, derive_seed(0, "widened"))


def check_widening(network: nn.Module, config: TeacherConfig) -> None:
    """Check that a network can be widened and keeps its old outputs; leaves it unchanged.

    Args:
        network: in eval mode.

    Raises:
        InputError: its output layer cannot be widened, or another layer follows it.
    """
    random = torch.Generator().manual_seed(0)
    images = torch.randn(2, *config.input_shape, generator=random)
    with torch.no_grad():
        before = network(images)
        try:
            after = widened(network, config.classes, 1, 0)(images)
        except RuntimeError:
            after = before.new_zeros(0, 0)
    if after.shape != (2, config.classes + 1) or not torch.allclose(after[:, :-1], before, rtol=1e-4, atol=1e-5):
        allowed = "a network whose logits are its last layer's outputs, one for each class"
        remedy = "with one output more its other outputs change: no other kind of network can be given new classes"
        raise InputError("teacher.network", config.network, allowed, remedy)
