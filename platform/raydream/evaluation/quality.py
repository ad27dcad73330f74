"""Quality and diversity of a set of images, measured with a stated network (Table 3 of the paper).

N images, D features (inputs of the network's output layer), K classes.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from raydream.extras import require
from raydream.seeds import derive_seed

NEIGHBORS = 3
"""k of precision and recall (their paper: 3)"""
SPLIT_IMAGES, MOST_SPLITS = 500, 10
"""Inception score: fewest images per split, and most splits (usually 10 of 5,000)"""


@dataclass(frozen=True)
class NetworkOutputs:
    """A network's outputs for images.

    Attributes:
        logits: float32 [N,K].
        features: float32 [N,D].
    """

    logits: np.ndarray
    features: np.ndarray


def inception_score(logits: np.ndarray, seed: int = 0) -> float:
    """Return exp of the mean KL divergence of each image's class probabilities from their mean (Salimans et al. 2016).

    Args:
        logits: [N,K] of the network used in place of Inception-v3.
        seed: seed of the order in which images are split.

    Returns:
        in [1, K]: higher where predictions are confident and cover all classes.
    """
    require("metrics", "the Inception score")
    from torchmetrics.image.inception import InceptionScore  # here, as it takes seconds, and one table needs it

    splits = min(MOST_SPLITS, max(1, len(logits) // SPLIT_IMAGES))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # that it holds all logits, and that one split has no deviation
        torch.manual_seed(derive_seed(seed, "inception score"))
        metric = InceptionScore(nn.Identity(), splits)
        metric.update(torch.from_numpy(logits).double())
        return float(metric.compute()[0])


def frechet_distance(features: np.ndarray, real: np.ndarray) -> float:
    """Return the distance of two Gaussians with the sets' means and covariances (FID, Heusel et al. 2017), >= 0.

    Args:
        features, real: [N,D] and [M,D] of a stated network; figures of two networks cannot be compared.
    """
    require("metrics", "the Frechet distance")
    from torchmetrics.image.fid import FrechetInceptionDistance  # here, as above

    metric = FrechetInceptionDistance(_Given(features.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(features).double(), real=False)
    metric.update(torch.from_numpy(real).double(), real=True)
    return max(0.0, float(metric.compute()))


class _Given(nn.Module):
    """Features that are computed already."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features


def precision_recall(features: np.ndarray, real: np.ndarray, neighbors: int = NEIGHBORS) -> tuple[float, float]:
    """Shares in [0, 1] of images among the real ones, and of real ones among the images (Kynkäänniemi et al. 2019).

    An image is among a set where it lies no further from one of it than that one's k-th nearest neighbor in it.

    Args:
        features, real: [N,D] and [M,D], N and M > `neighbors`.
        neighbors: k.
    """
    made, true = (torch.from_numpy(each).double() for each in (features, real))
    between = torch.cdist(made, true)
    radii = [torch.cdist(each, each).kthvalue(neighbors + 1, dim=1).values for each in (made, true)]
    precision = (between <= radii[1]).any(1).double().mean()
    recall = (radii[0] >= between.T).any(1).double().mean()
    return float(precision), float(recall)


def pairwise_distance(features: np.ndarray) -> float:
    """Return the mean Euclidean distance of two different rows of features [N,D], N >= 2."""
    return float(torch.pdist(torch.from_numpy(features).double()).mean())
