import numpy as np
import pytest

from raydream.evaluation.calibration import reliability


def logits_for(confidences: list[float], named: list[int], classes: int = 3) -> np.ndarray:
    """Whose softmax gives the class named this probability, and the others the rest in equal parts."""
    made = np.empty((len(confidences), classes))
    for row, (confidence, label) in enumerate(zip(confidences, named, strict=True)):
        made[row] = np.log((1 - confidence) / (classes - 1))
        made[row, label] = np.log(confidence)
    return made


def slow_error(logits: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The definition, bin by bin (Guo et al. 2017, eq. 3)."""
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    error = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = [row for row, each in enumerate(probabilities) if low < each.max() <= high]
        if inside:
            accuracy = np.mean([probabilities[row].argmax() == labels[row] for row in inside])
            error += len(inside) / len(labels) * abs(accuracy - np.mean([probabilities[row].max() for row in inside]))
    return error


@pytest.mark.parametrize("bins", [1, 3, 15, 100])
@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_the_error_equals_its_definition(bins, scale):
    random = np.random.default_rng(bins)
    logits, labels = scale * random.standard_normal((400, 5)), random.integers(0, 5, 400)
    found = reliability(logits, labels, bins)
    assert found.error == pytest.approx(slow_error(logits, labels, bins), abs=1e-12)
    assert found.counts.sum() == 400


def test_what_is_right_as_often_as_it_is_sure_has_no_error():
    logits = logits_for([0.75] * 4, [0, 0, 1, 2])
    assert reliability(logits, np.array([0, 0, 1, 0])).error == pytest.approx(0.0, abs=1e-12)
    assert reliability(logits, np.array([0, 0, 1, 2])).error == pytest.approx(0.25)
    assert reliability(logits, np.array([1, 1, 0, 0])).error == pytest.approx(0.75)


def test_the_bins_are_open_below_and_closed_above():
    found = reliability(logits_for([0.4, 0.6, 0.9], [0, 1, 2], 3), np.array([0, 0, 2]), bins=10)
    assert found.counts.tolist() == [0, 0, 0, 1, 0, 1, 0, 0, 1, 0]
    assert found.accuracies[[3, 5, 8]].tolist() == [1, 0, 1]
    assert found.confidences[[3, 5, 8]] == pytest.approx([0.4, 0.6, 0.9])
    assert np.isnan(found.accuracies[0]) and np.isnan(found.confidences[0])


def test_large_logits_are_full_confidence_in_the_last_bin():
    found = reliability(np.array([[1e4, 0.0], [0.0, 1e4]], np.float32), np.array([0, 0]))
    assert found.counts[-1] == 2 and found.error == pytest.approx(0.5)
