"""Calibration: agreement of a network's confidence with its accuracy (Guo et al. 2017)."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Predictions by confidence, the probability of the predicted class, in bins of equal width over (0, 1].

    Attributes:
        counts: int64 [B], number of predictions in each bin.
        confidences, accuracies: float64 [B], their means in [0, 1]; NaN where a bin is empty.
    """

    counts: np.ndarray
    confidences: np.ndarray
    accuracies: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error in [0, 1]: the mean distance between confidence and accuracy, over predictions."""
        filled = self.counts > 0
        distances = np.abs(self.accuracies[filled] - self.confidences[filled])
        return float(np.average(distances, weights=self.counts[filled]))


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Compute accuracy by confidence.

    Args:
        logits: [N,K], N >= 1; probabilities are their softmax.
        labels: int [N].
        bins: B >= 1; the i-th is ((i - 1) / B, i / B].
    """
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidences = np.bincount(place, confidence, bins) / counts
        accuracies = np.bincount(place, right, bins) / counts
    return Reliability(counts, confidences, accuracies)
