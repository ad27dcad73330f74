"""Pictures of a batch, a row for each class."""

import numpy as np
import pytest

from raydream.tracking.pictures import CLASSES, EXAMPLES, GAP, MOST_PICTURES, class_pictures


def images_of(targets: np.ndarray, channels: int = 1, side: int = 8) -> np.ndarray:
    """Images of one color each, which is ten times the class."""
    return np.broadcast_to(
        (10 * targets + 5).astype(np.uint8)[:, None, None, None], (len(targets), channels, side, side)
    )


def test_each_class_has_a_labeled_row_of_its_images_magnified_to_nearest_neighbors():
    targets = np.array([3, 0, 3, 7, 3])
    ((name, picture),) = class_pictures(images_of(targets), targets)
    assert name == "classes 0-9" and picture.dtype == np.uint8
    rows, margin = 3, picture.shape[1] - 3 * (64 + GAP)
    assert picture.shape == (GAP + rows * (64 + GAP), picture.shape[1], 3) and margin > 40
    for row, (label, count) in enumerate([(0, 1), (3, 3), (7, 1)]):
        band = picture[GAP + row * (64 + GAP) :][:64]
        assert (band[:, :margin] < 100).any(), "its label"
        for place in range(3):
            cell = band[:, margin + place * (64 + GAP) :][:, :64]
            assert (cell == (10 * label + 5 if place < count else 255)).all()


def test_pixels_are_neither_blurred_nor_moved():
    image = np.zeros((1, 1, 8, 8), np.uint8)
    image[0, 0, 2, 5] = 200
    ((_, picture),) = class_pictures(image, np.array([1]))
    margin = picture.shape[1] - 64 - GAP
    cell = picture[GAP : GAP + 64, margin : margin + 64]
    expected = np.zeros((64, 64, 3), np.uint8)
    expected[16:24, 40:48] = 200
    assert np.array_equal(cell, expected)


def test_a_class_is_in_the_same_picture_in_each_batch():
    few, many = np.array([12]), np.arange(200)
    assert [name for name, _ in class_pictures(images_of(few), few)] == ["classes 10-19"]
    names = [name for name, _ in class_pictures(images_of(many), many)]
    assert names == [f"classes {CLASSES * i}-{CLASSES * i + 9}" for i in range(MOST_PICTURES)]


@pytest.mark.parametrize(("channels", "side", "shown"), [(3, 32, 64), (2, 8, 64), (3, 224, 112), (1, 128, 128)])
def test_images_of_any_size_are_shown_at_one_that_can_be_seen(channels, side, shown):
    targets = np.zeros(EXAMPLES + 5, np.int64)
    ((_, picture),) = class_pictures(images_of(targets, channels, side), targets)
    assert picture.shape[0] == 2 * GAP + shown and picture.shape[1] < EXAMPLES * (shown + GAP) + 100
