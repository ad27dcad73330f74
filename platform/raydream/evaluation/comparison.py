"""Comparison of a student with its teacher on the same images."""

from typing import Any

import numpy as np

from raydream.evaluation.calibration import Reliability, reliability


def beside(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compare student and teacher; returns figures for a summary in plain types, shares in [0, 1].

    Args:
        student, teacher: their logits [N,K] for the same labeled images, N >= 1.
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
    """Return the share in [0, 1] of images for which two networks predict the same class; both are logits [N,K]."""
    return float((one.argmax(1) == other.argmax(1)).mean())


def accuracy_by_class(logits: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """Return each class's share in [0, 1] of correctly classified images, [K]; None for a class without images."""
    right = logits.argmax(1) == labels
    classes = range(logits.shape[1])
    return [float(right[labels == label].mean()) if (labels == label).any() else None for label in classes]


def _plain(measured: Reliability) -> list[dict[str, float]]:
    """Return the bins that hold predictions, in plain types."""
    return [
        {"answers": int(count), "confidence": float(confidence), "accuracy": float(accuracy)}
        for count, confidence, accuracy in zip(measured.counts, measured.confidences, measured.accuracies, strict=True)
        if count
    ]
