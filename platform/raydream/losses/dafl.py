"""DAFL's losses, by which a generator network is trained against a teacher alone (Chen et al., ICCV 2019)."""

import torch
from torch import Tensor
from torch.nn import functional


def one_hot(logits: Tensor) -> Tensor:
    """Distance of the outputs from one-hot: cross-entropy with the network's own predictions, mean over images.

    Args:
        logits: [N,K].

    Returns:
        a scalar >= 0, in nats.
    """
    return functional.cross_entropy(logits, logits.detach().argmax(dim=1))


def activation(activations: Tensor) -> Tensor:
    """Minus the mean absolute input of the last layer: meaningful images activate it more.

    The paper adds up the D values of an image; its published code, whose weight of 0.1 is in common use, averages them,
    as does this function.

    Args:
        activations: [N,D].

    Returns:
        a scalar <= 0.
    """
    return -activations.abs().mean()


def information_entropy(prediction: Tensor) -> Tensor:
    """Minus the entropy of the mean prediction: lowest where all classes appear equally often.

    Args:
        prediction: [K], the mean over all images of the network's probabilities.

    Returns:
        a scalar in [-ln K, 0], in nats (the published code counts in powers of ten, which is 2.3 times less).
    """
    summands: Tensor = torch.special.xlogy(prediction, prediction)
    return summands.sum()
