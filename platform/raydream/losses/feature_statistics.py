"""What batch normalisation remembers of the training data, compared with what the images make it see (eq. 4-5)."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norm_layers(network: nn.Module) -> dict[str, _BatchNorm]:
    """The network's BN layers by name, in the order of their definition."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, _BatchNorm)}


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, over batch and space.

    Args:
        x: [N,C] or [N,C,...].

    Returns:
        mean and variance, each [C].
    """
    variance, mean = torch.var_mean(x, dim=[0, *range(2, x.dim())], correction=0)
    return mean, variance


def feature_distance(mean: Tensor, variance: Tensor, running_mean: Tensor, running_variance: Tensor) -> Tensor:
    """One layer's share of R_feature (eq. 5): ||mean - running mean||_2 + ||variance - running variance||_2.

    The norms are not squared. Where a difference is exactly zero its gradient is taken as zero.

    Args:
        mean, variance, running_mean, running_variance: each [C].

    Returns:
        a scalar >= 0.
    """
    of_means: Tensor = torch.linalg.vector_norm(mean - running_mean)
    of_variances: Tensor = torch.linalg.vector_norm(variance - running_variance)
    return of_means + of_variances


def feature_statistics(distances: Tensor, first_bn: float) -> Tensor:
    """R_feature (eq. 4-5): the layers' distances added up, the first one's times `first_bn`.

    Args:
        distances: [L], one per BN layer, the first layer first.
        first_bn: multiplier >= 0 (the published code: 1 for CIFAR-10, 10 for ImageNet).
    """
    return distances.sum() + (first_bn - 1.0) * distances[0]


class FeatureObserver:
    """Measures, at each forward pass, how far what enters each BN layer is from its running statistics.

    A context manager: the hooks live exactly as long as the `with` block, whatever happens in it.

    Args:
        network: in eval mode, so that statistics are compared and not used.

    Raises:
        ValueError: the network has no BN layer that keeps running statistics.
    """

    def __init__(self, network: nn.Module) -> None:
        self.names: list[str] = []
        self._layers: list[_BatchNorm] = []
        self._running: list[tuple[Tensor, Tensor]] = []
        for name, layer in batch_norm_layers(network).items():
            if layer.running_mean is not None and layer.running_var is not None:
                self.names.append(name)
                self._layers.append(layer)
                self._running.append((layer.running_mean, layer.running_var))
        if not self._layers:
            raise ValueError("the network has no batch normalisation with running statistics to compare with")
        self._distances: dict[int, Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> "FeatureObserver":
        for index, layer in enumerate(self._layers):
            self._handles.append(layer.register_forward_pre_hook(self._hook(index)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._distances.clear()

    def distances(self) -> Tensor:
        """[L], the distances of the last forward pass in the order of `names`; each pass is read once.

        Raises:
            ValueError: a layer was not run in that pass (an auxiliary head, say).
        """
        missed = [name for index, name in enumerate(self.names) if index not in self._distances]
        if missed:
            raise ValueError(f"these BN layers are not run in eval mode: {', '.join(missed)}")
        distances = torch.stack([self._distances[index] for index in range(len(self._layers))])
        self._distances.clear()
        return distances

    def _hook(self, index: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        running_mean, running_variance = self._running[index]

        def observe(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._distances[index] = feature_distance(*batch_statistics(inputs[0]), running_mean, running_variance)

        return observe
