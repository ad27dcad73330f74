"""Quality and diversity of images against what can be computed by hand or by a slow reference."""

import numpy as np
import pytest

from raydream.evaluation.quality import frechet_distance, inception_score, pairwise_distance, precision_recall


def test_the_inception_score_is_the_classes_where_images_are_decided_and_one_where_all_are_alike() -> None:
    logits = np.tile(100.0 * np.eye(4, dtype=np.float32), (25, 1))
    assert inception_score(logits) == pytest.approx(4.0, rel=1e-4)
    assert inception_score(np.zeros((60, 5), np.float32)) == pytest.approx(1.0)


def test_the_inception_score_against_its_definition() -> None:
    logits = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    kl = (shares * np.log(shares / shares.mean(0))).sum(1)
    assert inception_score(logits) == pytest.approx(np.exp(kl.mean()), rel=1e-4)


def test_the_frechet_distance_of_shifted_images_is_the_shift_squared() -> None:
    features = np.random.default_rng(1).normal(size=(200, 5)).astype(np.float32)
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(features + np.float32(2.0), features) == pytest.approx(5 * 4.0, rel=1e-4)
    wide = features - features.mean(0)
    variance = wide.astype(np.float64).T @ wide / (len(wide) - 1)
    assert frechet_distance(3 * wide, wide) == pytest.approx(4 * np.trace(variance), rel=1e-3)  # (3-1)^2 tr(S)


def test_precision_and_recall_tell_quality_from_diversity() -> None:
    random = np.random.default_rng(2)
    real = np.concatenate([random.normal(at, 0.1, (40, 3)) for at in (0.0, 5.0)]).astype(np.float32)
    narrow, far = real[:40] + np.float32(0.001), real + np.float32(100.0)
    precision, recall = precision_recall(narrow, real)
    assert precision > 0.95 and 0.4 < recall < 0.6  # good, of one half of what there is
    assert precision_recall(far, real) == (0.0, 0.0)
    assert precision_recall(real, real) == (1.0, 1.0)


def test_precision_against_a_slow_reference() -> None:
    random, k = np.random.default_rng(3), 3
    made, real = (random.normal(size=(count, 4)).astype(np.float32) for count in (30, 40))

    def covered(points: np.ndarray, among: np.ndarray) -> float:
        radii = [sorted(np.linalg.norm(each - other) for other in among)[k] for each in among]
        inside = [any(np.linalg.norm(x - y) <= r for y, r in zip(among, radii, strict=True)) for x in points]
        return float(np.mean(inside))

    assert precision_recall(made, real, k) == pytest.approx((covered(made, real), covered(real, made)))


def test_the_pairwise_distance() -> None:
    points = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]], np.float32)
    assert pairwise_distance(points) == pytest.approx((5.0 + 0.0 + 5.0) / 3)
