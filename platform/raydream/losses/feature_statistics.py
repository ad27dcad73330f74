"""What batch normalisation remembers of the training data, compared with what the images make it see (eq. 4-5)."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norm_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The network's BN layers by name, in the order of their definition; each has `running_mean`, `running_var`.

    Those of torch (1d, 2d, 3d, sync) and what derives from them, and detection's FrozenBatchNorm, which keeps the
    statistics of its training just as well.
    """

    def is_one(layer: nn.Module) -> bool:
        return isinstance(layer, _BatchNorm) or type(layer).__name__.startswith("FrozenBatchNorm")

    return {name: layer for name, layer in network.named_modules() if is_one(layer)}


def keeps_statistics(network: nn.Module) -> bool:
    """Whether any of a network's BN layers has running statistics to compare with."""
    return any(layer.running_mean is not None for layer in batch_norm_layers(network).values())


MOST_SUMMED = 2**20
"""values per channel up to which ATen's plain summing in fp32 is exact enough (a relative 1e-4 at a quarter of it)"""
MOST_OFFSET = 20.0
"""standard deviations that a mean may be from 0 for ATen's plain summing; the mean of 2^20 values 1,000 standard
deviations away is off by 10 of them, and the variance by 90 times what it is"""


def batch_statistics(x: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, over batch and space, by whatever is fastest and exact enough.

    Args:
        x: [N,C] or [N,C,...], of any precision.
        around: [C], about where the means are expected.

    Returns:
        mean and variance, each [C], in fp32 or better.
    """
    if torch.compiler.is_compiling():
        return one_pass_statistics(x, around)
    if x.device.type == "cpu" and x.numel() <= MOST_SUMMED * x.shape[1]:
        return _FastStatistics.apply(x)  # type: ignore[no-any-return]
    variance, mean = torch.var_mean(_wide(x), dim=[0, *range(2, x.dim())], correction=0)
    return mean, variance


def one_pass_statistics(x: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
    """The same by two sums, which the compiler makes one loop of; its own var_mean takes twice as long.

    The variance is a difference: the mean of (x - around)^2 less the square of the mean of (x - around). With fp32 sums
    of 262,144 values its relative error is below 1e-4 for means within 2 standard deviations of `around`, and below
    1e-2 within 20. An inversion brings them ever closer to the running means.
    """
    over = [0, *range(2, x.dim())]
    centred = _wide(x) - around.view(1, -1, *[1] * (x.dim() - 2))
    offset = centred.mean(over)
    return around + offset, centred.square().mean(over) - offset.square()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class _FastStatistics(torch.autograd.Function):
    """The same by ATen's batch-norm kernel: one pass, where var_mean takes several on uncompiled CPU tensors.

    Channels whose mean is more than `MOST_OFFSET` standard deviations from 0 are done again by var_mean. An error of
    the mean enlarges the variance by no more than its square, so such channels are found in spite of their errors.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        # Running statistics of this type make it answer in this type, whatever x is; they are thrown away.
        unused = torch.zeros(2, x.shape[1], dtype=kind)
        mean, variance = torch.ops.aten.batch_norm_update_stats(x, unused[0], unused[1], 0.0)
        excess = torch.addcmul(variance, mean, mean, value=-(MOST_OFFSET**-2))
        if excess.min().item() < 0.0:
            far, over = (excess < 0.0).nonzero().flatten(), [0, *range(2, x.dim())]
            variance[far], mean[far] = torch.var_mean(_wide(x[:, far]), dim=over, correction=0)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.dim() - 2))
        count = x.numel() / x.shape[1]
        slope = 2.0 * of_variance / count
        offset = of_mean / count - slope * mean
        return torch.addcmul(offset.view(shape), x, slope.view(shape)).to(x.dtype)


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


Statistics = list[tuple[Tensor, Tensor]]
"""mean and biased variance of what entered a BN layer, each [C]: layer by layer, and use by use of each layer"""


class ObservedNetwork(nn.Module):
    """A frozen copy of a network that also tells what entered its BN layers.

    A copy, because its hooks stay for good (torch.compile would compile anew for each new hook), and because its
    weights are laid out for speed; the network it was made from is left as it is. A layer that is used several times
    in one pass is compared at each use.

    Args:
        network: whose BN layers with running statistics are observed; is copied, frozen and put in eval mode, so that
            statistics are compared and not used.

    Raises:
        ValueError: the network has no BN layer that keeps running statistics.

    Attributes:
        names: of the observed layers, in the order of their definition.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = frozen_copy(network)
        observed = {
            name: layer for name, layer in batch_norm_layers(self.network).items() if layer.running_mean is not None
        }
        if not observed:
            raise ValueError("the network has no batch normalisation with running statistics to compare with")
        self.names = list(observed)
        self._layers = list(observed.values())
        self._seen: list[Statistics] = [[] for _ in observed]
        self._uses = [1] * len(observed)
        for index, layer in enumerate(self._layers):
            layer.register_forward_pre_hook(self._hook(index), with_kwargs=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Statistics]:
        """Images [N,C,H,W] to logits [N,K] and the statistics of this pass.

        Raises:
            ValueError: a layer was not run in this pass (an auxiliary head, say).
        """
        try:
            logits = self.network(x)
        finally:
            # Taken away at once: kept, they would keep the whole pass in memory until the next one.
            found, self._seen = self._seen, [[] for _ in self._seen]
        missed = [name for name, seen in zip(self.names, found, strict=True) if not seen]
        if missed:
            raise ValueError(f"these BN layers are not run in eval mode: {', '.join(missed)}")
        self._uses = [len(seen) for seen in found]
        return logits, [pair for seen in found for pair in seen]

    def distances(self, statistics: Statistics) -> Tensor:
        """[L], how far the statistics of a pass are from each layer's running ones, added up over the layer's uses."""
        left, distances = list(statistics), []
        for layer, uses in zip(self._layers, self._uses, strict=True):
            mine, left = left[:uses], left[uses:]
            running = layer.running_mean, layer.running_var
            each = [feature_distance(mean, variance, *running) for mean, variance in mine]  # type: ignore[arg-type]
            distances.append(sum(each[1:], start=each[0]))
        return torch.stack(distances)

    def _hook(self, index: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def observe(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = inputs[0] if inputs else next(iter(named.values()))
            self._seen[index].append(batch_statistics(x, layer.running_mean))  # type: ignore[arg-type]

        return observe


class SmoothedNetwork(ObservedNetwork):
    """An observed network that compares a moving average of the statistics, over batches, with the running ones.

    What is compared is m * average + (1 - m) * batch, with the momentum m (FastDFKD, AAAI 2022, as its code has it).
    The norms of eq. 5 are not squared, so the gradient of the batch is 1 - m of what it would be, whatever the
    distance: a momentum of 0.9 weighs R_feature like a tenth of alpha_f, and lets batches make up for each other.

    Args:
        network: see `ObservedNetwork`.
        momentum: m, in [0, 1).
        example: images [N,C,H,W] that the network takes, from which the number of statistics is known.

    Attributes:
        compared: [2, C of all layers and uses], means and variances that were last compared: what the average is once
            it has taken in that batch.
    """

    average: Tensor
    weight: Tensor

    def __init__(self, network: nn.Module, momentum: float, example: Tensor) -> None:
        super().__init__(network)
        self._momentum = momentum
        with torch.no_grad():
            self.compared = _stacked(self(example)[1])
        # Buffers that are overwritten: compiled code would be compiled again for other tensors.
        self.register_buffer("average", torch.zeros_like(self.compared))
        self.register_buffer("weight", torch.zeros_like(self.compared[0, 0]))

    def begin(self, average: Tensor | None) -> None:
        """Set the average, [2, C of all layers and uses], that the next passes are smoothed by; None: there is none."""
        self.weight.fill_(0.0 if average is None else self._momentum)
        if average is not None:
            self.average.copy_(average)

    def distances(self, statistics: Statistics) -> Tensor:
        """[L], as `ObservedNetwork.distances`, of the smoothed statistics."""
        smoothed = torch.lerp(_stacked(statistics), self.average, self.weight)
        self.compared = smoothed.detach()
        widths = [len(mean) for mean, _ in statistics]
        means, variances = (row.split(widths) for row in smoothed)
        return super().distances(list(zip(means, variances, strict=True)))


def _stacked(statistics: Statistics) -> Tensor:
    return torch.stack([torch.cat([pair[part] for pair in statistics]) for part in (0, 1)])


def frozen_copy(network: nn.Module) -> nn.Module:
    """A copy in eval mode without gradients for its weights, which lie channels-last where they are images'."""
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for weight in copied.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return copied
