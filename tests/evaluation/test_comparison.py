import json

import numpy as np
import pytest

from raydream.evaluation.comparison import accuracy_by_class, agreement, beside

LABELS = np.array([0, 0, 1, 1, 1, 3])


def logits(named: list[int]) -> np.ndarray:
    return 3.0 * np.eye(4, dtype=np.float32)[named]


def test_agreement_is_the_share_of_equal_answers_right_or_wrong():
    assert agreement(logits([0, 2, 1, 1]), logits([0, 2, 3, 1])) == 0.75


def test_accuracy_by_class_and_none_where_a_class_has_no_images():
    assert accuracy_by_class(logits([0, 1, 1, 1, 2, 3]), LABELS) == [0.5, pytest.approx(2 / 3), None, 1.0]


def test_figures_of_both_can_be_written_as_json_and_tell_student_from_teacher():
    figures = beside(logits([0, 1, 1, 1, 2, 2]), logits([0, 0, 1, 1, 1, 3]), LABELS)
    again = json.loads(json.dumps(figures, allow_nan=False))
    assert again == figures
    assert figures["agreement"] == 0.5
    assert figures["teacher_accuracy_by_class"] == [1.0, 1.0, None, 1.0]
    assert figures["student_accuracy_by_class"] == [0.5, pytest.approx(2 / 3), None, 0.0]
    sure = float(np.exp(3) / (np.exp(3) + 3))
    assert figures["teacher_reliability"] == [{"answers": 6, "confidence": pytest.approx(sure), "accuracy": 1.0}]
    assert figures["teacher_calibration_error"] == pytest.approx(1 - sure)
    assert figures["student_calibration_error"] == pytest.approx(sure - 0.5)
