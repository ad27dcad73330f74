"""Learned activations, which change each value apart: PReLU, and those of others that do the same."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call


def activation_width(layer: object) -> int | None:
    """Count the channels that a learned activation has parameters for; None for any other layer.

    A learned activation is a module without submodules and buffers that changes each value apart, by parameters that
    all channels share or that each channel has for itself. It is recognized by its effect on random values.

    Returns:
        1 where all channels share its parameters.
    """
    if not isinstance(layer, nn.Module) or next(layer.children(), None) or next(layer.buffers(), None) is not None:
        return None
    shapes = {name: parameter.shape for name, parameter in layer.named_parameters()}
    width = max((shape.numel() for shape in shapes.values()), default=0)
    if not shapes or any(shape.numel() not in (1, max(shape)) for shape in shapes.values() if shape):
        return None
    if any(shape.numel() not in (1, width) for shape in shapes.values()):
        return None
    return width if _changes_values_apart(layer, shapes, width) else None


def _changes_values_apart(layer: nn.Module, shapes: Mapping[str, torch.Size], width: int) -> bool:
    """Return whether a change of one value, or of one channel's parameter, changes nothing else."""
    random = torch.Generator().manual_seed(0)
    weights = {name: torch.rand(shape, generator=random) + 0.5 for name, shape in shapes.items()}
    x = torch.randn(2, width if width > 1 else 3, 5, 7, generator=random)

    def run(values: Tensor, **others: Tensor) -> Tensor:
        # Its own weights are not looked at: they may be anywhere, and be all the same.
        found: Tensor = functional_call(layer, {**weights, **others}, (values,))
        return found

    try:
        with torch.no_grad():
            expected, moved = run(x), x.clone()
            moved[0, 0, 0, 0] += 1.0
            changed = run(moved) != expected
            others = int(changed.sum()) - int(changed[0, 0, 0, 0])
            for name, weight in weights.items() if width > 1 else ():
                if weight.numel() > 1:
                    bumped = weight.clone()
                    bumped.view(-1)[0] += 1.0
                    others += int((run(x, **{name: bumped}) != expected)[:, 1:].sum())
    except Exception:  # whatever a layer raises that takes no such values
        return False
    return expected.shape == x.shape and not others
