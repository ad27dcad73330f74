"""Compares the running statistics of batch normalization with the statistics of the images (eq. 4-5)."""

from typing import Any

import torch
from torch import Tensor, nn

from raydream.networks.observed import ObservedNetwork


def feature_distances(statistics: Tensor, running: Tensor, widths: list[int]) -> Tensor:
    """Each layer's share of R_feature (eq. 5): ||mean - running mean||_2 + ||variance - running variance||_2.

    The norms are not squared. Where a difference is exactly zero its gradient is taken as zero. All layers are computed
    together, as their vectors are short and a norm apiece would cost more than the arithmetic.

    Args:
        statistics, running: means and variances, [2, C of all layers], layer by layer.
        widths: C of each layer.

    Returns:
        [L], each >= 0; the least positive number, of about 1e-19 in fp32, stands for 0.
    """
    squares = (statistics - running).square().flatten()
    lengths = torch.tensor(2 * widths, device=squares.device)
    sums = torch.segment_reduce(squares, "sum", lengths=lengths, unsafe=True)
    # Clamping is what makes the gradient of the root 0 where a sum is 0.
    return sums.clamp_min(torch.finfo(sums.dtype).tiny).sqrt().view(2, -1).sum(0)


def feature_statistics(distances: Tensor, first_bn: float) -> Tensor:
    """R_feature (eq. 4-5): the layers' distances added up, the first one's times `first_bn`.

    Args:
        distances: [L], one per BN layer, the first layer first.
        first_bn: multiplier >= 0 (the published code: 1 for CIFAR-10, 10 for ImageNet).
    """
    return distances.sum() + (first_bn - 1.0) * distances[0]


class FeatureDistances(nn.Module):
    """The distances of a pass's statistics from the running ones, for each BN layer.

    A layer that is used several times in one pass is compared at each use.

    Args:
        observed: the network whose BN layers are observed; the statistics come from its last pass, or from one with the
            same number of uses of each layer.
    """

    def __init__(self, observed: ObservedNetwork) -> None:
        super().__init__()
        self.observed = observed

    def compared(self, statistics: Tensor) -> Tensor:
        """Return what is compared for a pass with these statistics, [2, C of all layers and uses]: themselves."""
        return statistics

    def forward(self, statistics: Tensor) -> Tensor:
        """Return the distances [L], those of several uses of a layer added up.

        Args:
            statistics: [2, C of all layers and uses], as `compared` returns them.
        """
        layers, uses = self.observed.layers.values(), self.observed.uses
        used: list[Any] = [layer for layer, count in zip(layers, uses, strict=True) for _ in range(count)]
        means, variances = [layer.running_mean for layer in used], [layer.running_var for layer in used]
        running = torch.stack((torch.cat(means), torch.cat(variances)))
        distances = feature_distances(statistics, running, [len(mean) for mean in means])
        if len(used) == len(uses):
            return distances
        return torch.stack([each.sum() for each in torch.split(distances, uses)])


class SmoothedDistances(FeatureDistances):
    """The distances of a moving average of the statistics, over batches, from the running ones.

    What is compared is m * average + (1 - m) * batch, with the momentum m (FastDFKD, AAAI 2022, as its code has it).
    The norms of eq. 5 are not squared, so smoothing scales the batch's gradient by 1 - m at any distance: a momentum of
    0.9 weighs R_feature like a tenth of alpha_f, and lets batches compensate for each other.

    Args:
        observed: see `FeatureDistances`.
        momentum: m, in [0, 1).
        example: images [N,C,H,W] that the network accepts; they determine the number of statistics.
    """

    average: Tensor
    weight: Tensor

    def __init__(self, observed: ObservedNetwork, momentum: float, example: Tensor) -> None:
        super().__init__(observed)
        self._momentum = momentum
        with torch.no_grad():
            statistics = observed(example).statistics
        assert statistics is not None  # of the layers whose running ones are compared
        # Buffers that are overwritten: compiled code would be compiled again for other tensors.
        self.register_buffer("average", torch.zeros_like(statistics))
        self.register_buffer("weight", torch.zeros_like(statistics[0, 0]))

    def begin(self, average: Tensor | None) -> None:
        """Set the average, [2, C of all layers and uses], that smooths the next passes; None: no average."""
        self.weight.fill_(0.0 if average is None else self._momentum)
        if average is not None:
            self.average.copy_(average)

    def compared(self, statistics: Tensor) -> Tensor:
        """Return the average including these statistics, [2, C of all layers and uses]."""
        return torch.lerp(statistics, self.average, self.weight)
