"""DAFL's losses, by which a generator network is trained against a teacher alone (Chen et al., ICCV 2019)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.losses.feature_statistics import frozen_copy


def one_hot(logits: Tensor) -> Tensor:
    """How far the outputs are from one-hot ones: the cross-entropy with the network's own answers, mean over images.

    Args:
        logits: [N,K].

    Returns:
        a scalar >= 0, in nats.
    """
    return functional.cross_entropy(logits, logits.detach().argmax(dim=1))


def activation(activations: Tensor) -> Tensor:
    """Minus the mean size of what enters the last layer: images that mean something excite it more.

    The paper adds up the D values of an image; its published code, whose weight of 0.1 is everybody's, averages them,
    and so does this.

    Args:
        activations: [N,D].

    Returns:
        a scalar <= 0.
    """
    return -activations.abs().mean()


def information_entropy(prediction: Tensor) -> Tensor:
    """Minus the entropy of the mean prediction: lowest where all classes are made equally often.

    Args:
        prediction: [K], the mean over all images of the network's probabilities.

    Returns:
        a scalar in [-ln K, 0], in nats (the published code counts in powers of ten, which is 2.3 times less).
    """
    summands: Tensor = torch.special.xlogy(prediction, prediction)
    return summands.sum()


class FeatureNetwork(nn.Module):
    """A frozen copy of a network that also tells what enters its last layer.

    Args:
        network: is copied, frozen and put in eval mode; its last layer is the last one defined, linear or a
            convolution, that has as many outputs as there are classes.
        classes: K.

    Raises:
        ValueError: there is no such layer.
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network = frozen_copy(network)
        heads = [layer for layer in self.network.modules() if _outputs(layer) == classes]
        if not heads:
            raise ValueError(f"the network has no linear layer and no convolution with {classes} outputs")
        self._seen: list[Tensor | None] = [None]
        heads[-1].register_forward_pre_hook(self._observe)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N,C,H,W] to logits [N,K] and what entered the last layer, [N,D].

        Raises:
            ValueError: that layer was not run in this pass.
        """
        try:
            logits = self.network(x)
        finally:
            (found,), self._seen = self._seen, [None]
        if found is None:
            raise ValueError("the layer with as many outputs as there are classes is not run in eval mode")
        return logits, found.flatten(1)

    def _observe(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._seen[0] = inputs[0]


def _outputs(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d) else 0
