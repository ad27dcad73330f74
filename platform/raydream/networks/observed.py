"""Observe a network's activations: the statistics at its BN layers, and the input of its last layer.

One rule names that layer (`last_layer`), and two classes observe it: `ObservedNetwork` copies the network and keeps its
hooks, for synthesizers that run the same code thousands of times; `WithFeatures` uses the network itself, which may
continue to learn, and removes its hook after each pass.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raydream.networks.batch_norm import LayerInput, batch_norm_layers, freeze_batch_norm, joined, moments
from raydream.networks.gathered import by_channel


def last_layer(network: nn.Module, classes: int) -> str:
    """Return the name of the layer that makes the logits.

    That is the last one in the order of definition that is linear, or a 2d convolution of any kernel, with one output
    per class. Grouped convolutions do not count: a depthwise one with one channel per class pools logits and does not
    make them.

    Args:
        classes: K.

    Raises:
        ValueError: the network has no such layer.
    """
    names: list[str] = [name for name, layer in network.named_modules() if _outputs(layer) == classes]
    if not names:
        raise ValueError(f"the network has no linear layer and no convolution with {classes} outputs")
    return names[-1]


def _outputs(layer: nn.Module) -> int | None:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d) and layer.groups == 1 else None


def frozen_copy(network: nn.Module) -> nn.Module:
    """Copy a network in eval mode without gradients for its weights; weights of image layers lie channels-last."""
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    freeze_batch_norm(copied)
    for weight in copied.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.clone(memory_format=torch.channels_last)
    return copied


class Observed(NamedTuple):
    """One pass through a network.

    Attributes:
        logits: [N,K].
        statistics: mean and biased variance of what entered the BN layers, [2, C of all layers and uses], in the order
            of the layers' definition; None where they are not observed.
        activations: [N,D], the input of the observed layer; None where no layer is observed.
    """

    logits: Tensor
    statistics: Tensor | None
    activations: Tensor | None


class ObservedNetwork(nn.Module):
    """A frozen copy of a network that also returns what passed through it.

    It is a copy because its hooks are permanent (torch.compile would compile again for each new hook) and its weights
    are laid out for speed; the original network stays unchanged. BN statistics are returned for each use of a layer
    that is used several times in one pass.

    Args:
        network: the original, which is copied; the copy is frozen and in eval mode, so that BN layers compare
            statistics and do not use them.
        statistics: whether to observe its BN layers, those with running statistics.
        before: name of a layer whose input is observed, see `last_layer`; of several uses the last one; None: no layer.

    Raises:
        ValueError: statistics are requested, but no BN layer keeps running statistics.

    Attributes:
        layers: the BN layers that are observed, by name, in the order of their definition.
        uses: number of uses of each of them in the last pass.
    """

    def __init__(self, network: nn.Module, *, statistics: bool = False, before: str | None = None) -> None:
        super().__init__()
        self.network = frozen_copy(network)
        found = batch_norm_layers(self.network) if statistics else {}
        self.layers = {name: layer for name, layer in found.items() if layer.running_mean is not None}
        if statistics and not self.layers:
            raise ValueError("the network has no batch normalization with running statistics to compare with")
        self.uses = [1] * len(self.layers)
        self._before = before
        self._seen: list[list[LayerInput]] = [[] for _ in self.layers]
        self._entered: list[Tensor | None] = [None]
        for index, layer in enumerate(self.layers.values()):
            layer.register_forward_pre_hook(self._observe(index), with_kwargs=True)
        if before is not None:
            self.network.get_submodule(before).register_forward_pre_hook(self._keep, with_kwargs=True)

    def forward(self, x: Tensor) -> Observed:
        """Run the network on images [N,C,H,W].

        Raises:
            ValueError: an observed layer was not run in this pass (an auxiliary head, say).
        """
        try:
            logits = self.network(x)
        finally:
            # Kept, they would keep the whole pass in memory until the next one. The lists themselves are emptied: what
            # remains in a list is an output of compiled code, with a gradient of its own, and so a copy per layer.
            found, entered = [seen.copy() for seen in self._seen], self._entered[0]
            for seen in self._seen:
                seen.clear()
            self._entered[0] = None
        missed = [name for name, seen in zip(self.layers, found, strict=True) if not seen]
        if missed:
            raise ValueError(f"these BN layers are not run in eval mode: {', '.join(missed)}")
        if self._before is not None and entered is None:
            raise ValueError(f"the layer {self._before}, with one output per class, is not run in eval mode")
        self.uses = [len(seen) for seen in found]
        activations = None if entered is None else entered.flatten(1)
        statistics = joined([each for seen in found for each in seen]) if found else None
        return Observed(logits, statistics, activations)

    def _observe(self, index: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def observe(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = by_channel(layer, _entering(inputs, named))
            self._seen[index].append(moments(x, layer.running_mean))  # type: ignore[arg-type]

        return observe

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._entered[0] = _entering(inputs, named)


class WithFeatures(nn.Module):
    """A network that also returns the input of one of its layers; it stays unchanged, in any mode.

    Args:
        network: the network itself, not a copy; it has no hook between two passes.
        before: name of the layer, see `last_layer`.

    Attributes:
        head: the layer.
    """

    def __init__(self, network: nn.Module, before: str) -> None:
        super().__init__()
        self.network = network
        self.head = network.get_submodule(before)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images [N,C,H,W] to logits [N,K] and the layer's input, [N,D]; of several uses the last one."""
        entered: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(
            lambda layer, inputs, named: entered.append(_entering(inputs, named)), with_kwargs=True
        )
        try:
            logits = self.network(x)
        finally:
            hook.remove()
        return logits, entered[-1].flatten(1)


def _entering(inputs: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    """Return the first argument of a layer, given by position or by name."""
    x: Tensor = inputs[0] if inputs else next(iter(named.values()))
    return x
