"""images.png: each image of a run where its class and round say."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raydream.errors import ShardError
from raydream.reporting import picture_grid
from raydream.store.records import ImageBatch
from tests.reporting.test_figures import make_batch, make_metrics, make_run
from tests.tiny import local_run


def cells(picture: np.ndarray, rounds: int, classes: int, height: int, width: int) -> list[list[list[np.ndarray]]]:
    """The cells by round, example and class, where the module's constants say that they are."""
    found = []
    for shown in range(rounds):
        top = picture_grid.MARGIN_TOP + shown * (2 * height + picture_grid.GAP + picture_grid.ROUND_GAP)
        rows = [top, top + height + picture_grid.GAP]
        lefts = [picture_grid.MARGIN_LEFT + place * (width + picture_grid.GAP) for place in range(classes)]
        found.append([[picture[row : row + height, left : left + width] for left in lefts] for row in rows])
    return found


@pytest.mark.parametrize(
    ("shape", "height", "width"),
    [((1, 8, 8), 64, 64), ((3, 8, 8), 64, 64), ((2, 8, 8), 64, 64), ((3, 12, 20), 36, 60), ((3, 40, 40), 40, 40)],
)
def test_image_grid_magnifies_each_image_by_a_whole_number(shape: tuple[int, ...], height: int, width: int) -> None:
    batches = [make_batch(0, shape=shape), make_batch(1, shape=shape)]
    found = cells(np.asarray(picture_grid.image_grid(batches)), 2, 10, height, width)
    scale = height // shape[1]
    for batch, rows in zip(batches, found, strict=True):
        for label in range(10):
            for example in range(2):
                image = batch.images[batch.targets == label][example].transpose(1, 2, 0)
                shown = image if shape[0] == 3 else np.repeat(image[..., :1], 3, axis=2)
                expected = shown.repeat(scale, axis=0).repeat(scale, axis=1)
                np.testing.assert_array_equal(rows[example][label], expected)


def test_image_grid_shows_ten_classes_and_eight_rounds_at_most() -> None:
    batches = [make_batch(shown, classes=12) for shown in range(20)]
    assert picture_grid.shown_classes([batch.targets for batch in batches]) == [*range(10)]
    picture = np.asarray(picture_grid.image_grid(batches))
    column, row = 64 + picture_grid.GAP, 2 * 64 + picture_grid.GAP + picture_grid.ROUND_GAP
    assert picture.shape[1] == picture_grid.MARGIN_LEFT + 10 * column - picture_grid.GAP + picture_grid.MARGIN
    bottom = 8 * row - picture_grid.ROUND_GAP
    assert picture.shape[0] == picture_grid.MARGIN_TOP + bottom + picture_grid.MARGIN


def test_image_grid_of_large_images_stays_small(tmp_path: Path) -> None:
    picture = picture_grid.image_grid([make_batch(shown, shape=(3, 224, 224)) for shown in range(2)])
    picture.save(tmp_path / "grid.png")
    assert picture.width < 1500
    assert (tmp_path / "grid.png").stat().st_size < 3_000_000


def test_labels_are_written_beside_the_images() -> None:
    batches = [make_batch(0), make_batch(1)]
    picture = np.asarray(picture_grid.image_grid(batches).convert("L"))
    above = picture[: picture_grid.MARGIN_TOP, picture_grid.MARGIN_LEFT :]
    left = picture[picture_grid.MARGIN_TOP :, : picture_grid.MARGIN_LEFT]
    assert above.min() < 100 and left.min() < 100


def test_a_class_without_images_leaves_a_gray_cell() -> None:
    batch = make_batch(0)
    keep = batch.targets != 4
    without = ImageBatch(batch.images[keep], batch.targets[keep], batch.teacher_logits[keep], batch.provenance)
    found = cells(np.asarray(picture_grid.image_grid([without, make_batch(1)])), 2, 10, 64, 64)
    assert np.unique(found[0][0][4]).tolist() == [225]
    assert len(np.unique(found[1][0][4])) > 1


def test_classes_that_all_rounds_have_are_shown_first() -> None:
    many, few = make_batch(0, classes=30), make_batch(1, classes=30)
    keep = few.targets >= 15
    few = ImageBatch(few.images[keep], few.targets[keep], few.teacher_logits[keep], few.provenance)
    assert picture_grid.shown_classes([many.targets, few.targets]) == [*range(15, 25)]


@pytest.mark.parametrize("batches", [[], [make_batch(0), make_batch(1, shape=(1, 9, 9))]])
def test_image_grid_refuses_what_makes_no_grid(batches: list[ImageBatch]) -> None:
    with pytest.raises(ValueError, match="one image shape"):
        picture_grid.image_grid(batches)


def test_save_image_grid_writes_a_png_without_blank_cells(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_metrics(), {}, {})
    path = picture_grid.save_image_grid(local_run(run))
    assert path == run / "images.png"
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    width = picture_grid.MARGIN_LEFT + 10 * 64 + 9 * picture_grid.GAP + picture_grid.MARGIN
    rounds = 4 * (2 * 64 + picture_grid.GAP) + 3 * picture_grid.ROUND_GAP
    assert picture.shape == (picture_grid.MARGIN_TOP + rounds + picture_grid.MARGIN, width, 3)
    for rows in cells(picture, 4, 10, 64, 64):
        for row in rows:
            assert all(len(np.unique(cell)) > 1 for cell in row)
    assert not list(run.glob(".*"))


def test_only_the_first_batch_of_a_round_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_metrics(), {}, {})
    for shown in range(4):
        (run / "images" / f"r{shown:04d}-b0001.parquet").write_bytes(b"damaged")
    picture_grid.save_image_grid(local_run(run))
    (run / "images" / "r0002-b0000.parquet").write_bytes(b"damaged")
    with pytest.raises(ShardError, match="r0002-b0000"):
        picture_grid.save_image_grid(local_run(run))


def test_save_image_grid_without_shards_says_so(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no image batch"):
        picture_grid.save_image_grid(local_run(tmp_path))
