import itertools

import numpy as np
import pytest

from raydream.config import DataConfig, TeacherConfig
from raydream.data import load_data
from raydream.data.digits import load_digits
from raydream.teachers.teacher import fingerprint

NAMES = ("train", "validation", "test")
FIRST_TEST_LABELS = [4, 8, 8, 3, 9, 0, 6, 3, 9, 8, 4, 5]


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_the_split_has_997_300_and_500_images(digits):
    for name, count in zip(NAMES, (997, 300, 500), strict=True):
        split = getattr(digits, name)
        assert split.images.shape == (count, 1, 8, 8) and split.labels.shape == (count,)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64


def test_the_splits_are_disjoint_and_together_all_images(digits):
    from sklearn import datasets

    def rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
        return [image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True)]

    splits = [rows(getattr(digits, name).images, getattr(digits, name).labels) for name in NAMES]
    bunch = datasets.load_digits()
    scaled = np.array([[round(value * 255 / 16) for value in row] for row in bunch.data], dtype=np.uint8)
    every = rows(scaled, bunch.target)
    # scikit-learn's digits are all different, so equal contents would be the same image twice.
    assert len(set(every)) == 1797
    assert sorted(itertools.chain(*splits)) == sorted(every)


def test_every_class_has_its_share_of_every_split(digits):
    everything = np.concatenate([getattr(digits, name).labels for name in NAMES])
    for name in NAMES:
        labels = getattr(digits, name).labels
        expected = np.bincount(everything, minlength=10) * len(labels) / 1797
        assert np.abs(np.bincount(labels, minlength=10) - expected).max() <= 1.0


def test_pixels_use_all_of_a_byte(digits):
    assert digits.train.images.min() == 0 and digits.train.images.max() == 255
    assert len(np.unique(digits.train.images)) == 17


def test_the_split_is_the_same_each_time_and_that_of_earlier_versions(digits):
    def prints(dataset) -> list[str]:
        return [fingerprint({"i": getattr(dataset, n).images, "l": getattr(dataset, n).labels}) for n in NAMES]

    np.random.seed(5)
    assert prints(load_digits()) == prints(digits)
    assert digits.test.labels[:12].tolist() == FIRST_TEST_LABELS


def test_the_split_is_the_one_that_scikit_learn_makes(digits):
    from sklearn.datasets import load_digits as original
    from sklearn.model_selection import train_test_split

    labels = original().target
    rest, test = train_test_split(np.arange(1797), test_size=500, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=300, stratify=labels[rest], random_state=0)
    for name, rows in zip(NAMES, (train, validation, test), strict=True):
        scaled = np.round(original().images[rows] * (255.0 / 16.0))
        assert np.array_equal(getattr(digits, name).images[:, 0], scaled)
        assert np.array_equal(getattr(digits, name).labels, labels[rows])


def test_data_sets_are_loaded_by_name(digits):
    assert np.array_equal(load_data(DataConfig(), TeacherConfig()).test.images, digits.test.images)
    assert load_data(DataConfig(name="none"), TeacherConfig()) is None
