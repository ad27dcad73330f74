"""A student beside its teacher, on the same images."""

from typing import Any

import numpy as np

from raydream.evaluation.calibration import Reliability, reliability


def beside(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Figures for a summary, in plain types; shares are in [0, 1].

    Args:
        student, teacher: their logits [N,K] of the same labeled images, N >= 1.
        labels: int [N].
    """
    figures: dict[str, Any] = {"agreement": agreement(student, teacher)}
    for name, logits in (("teacher", teacher), ("student", student)):
        measured = reliability(logits, labels)
        figures[f"{name}_calibration_error"] = measured.error
        figures[f"{name}_accuracy_by_class"] = accuracy_by_class(logits, labels)
        figures[f"{name}_reliability"] = _plain(measured)
    return figures


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share in [0, 1] of images of which two networks name the same class; both are logits [N,K]."""
    return float((one.argmax(1) == other.argmax(1)).mean())


def accuracy_by_class(logits: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """[K], share in [0, 1] of each class's images that are named as it; None where there are no images of it."""
    right = logits.argmax(1) == labels
    classes = range(logits.shape[1])
    return [float(right[labels == label].mean()) if (labels == label).any() else None for label in classes]


def _plain(measured: Reliability) -> list[dict[str, float]]:
    """The bins that hold answers."""
    return [
        {"answers": int(count), "confidence": float(confidence), "accuracy": float(accuracy)}
        for count, confidence, accuracy in zip(measured.counts, measured.confidences, measured.accuracies, strict=True)
        if count
    ]
