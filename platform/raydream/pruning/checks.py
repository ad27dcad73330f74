"""Checks, before anything starts, that a network can lose the configured number of channels."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from raydream.config import PruneConfig
from raydream.errors import InputError, first_line
from raydream.networks.pruned import widths_of, with_selected_shortcuts
from raydream.pruning.costs import Cost, filters, flops
from raydream.pruning.ranking import Rule, most_removable
from raydream.pruning.streams import follow, masked, remove

MOST_NAMED = 3
"""number of streams that a sentence names"""


def cost_of(of: str, network: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Return the cost that `pruning.of` counts."""
    return flops(network, input_shape) if of == "flops" else filters(network)


def check_prunable(network: nn.Module, config: PruneConfig) -> str:
    """Check that the configured number of channels can be removed from a teacher, which stays unchanged.

    Returns:
        a sentence on which layers keep all their channels, and why; empty where all can lose some.

    Raises:
        InputError: torch-pruning cannot follow it, no channels can be removed by themselves, it answers differently
            without a channel than with a silent one, or too many channels would be removed.
    """
    shape, pruning, name = config.teacher.input_shape, config.pruning, config.teacher.network
    allowed = "a network whose channels can be removed"
    try:
        followed = follow(network, shape)
    except Exception as error:  # whatever tracing somebody's network raises
        raise InputError("teacher.network", name, allowed, f"following them failed: {first_line(error)}") from error
    streams, kept = followed.streams, _listed(followed.left_out)
    if not streams:
        remedy = "it has no convolutions whose channels could go one by one"
        raise InputError("teacher.network", name, allowed, f"no layer can lose channels: {kept}" if kept else remedy)
    widths, rule = widths_of(with_selected_shortcuts(copy.deepcopy(network))), Rule(pruning.least, pruning.block)
    most = most_removable(streams, widths, cost_of(pruning.of, network, shape), rule)
    if pruning.ratio > most:
        remedy = f"more would leave a layer with less than {pruning.least} channels (pruning.least)"
        remedy += f"; left out: {kept}" if kept else ""
        raise InputError("pruning.ratio", pruning.ratio, f"at most {most:.3g} for {name}", remedy)
    one = {stream.name: [0] for stream in streams if stream.channels > 1}
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected, found = masked(network, streams, one)(x), remove(network, streams, one)(x)
    except Exception as error:  # a layer that keeps count of its channels by itself
        raise InputError("teacher.network", name, allowed, f"following them failed: {first_line(error)}") from error
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        remedy = "without some channels it answers differently than with silent ones"
        raise InputError("teacher.network", name, allowed, remedy)
    return f"these layers keep all their channels: {kept}" if kept else ""


def _listed(left_out: Mapping[str, str]) -> str:
    """List the streams that are left out, with the reasons; the first few of many."""
    shown = [f"{name} runs through {reasons}" for name, reasons in list(left_out.items())[:MOST_NAMED]]
    more = [f"and {len(left_out) - MOST_NAMED} more"] if len(left_out) > MOST_NAMED else []
    return "; ".join(shown + more)
