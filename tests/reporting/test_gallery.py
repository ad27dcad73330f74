"""The gallery: every class, an even spread of rounds, and the networks' answers."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raydream.config import DistillConfig
from raydream.config.conversion import as_dict
from raydream.data import Split
from raydream.errors import ShardError
from raydream.evaluation.accuracy import logits_of
from raydream.reporting import gallery as module
from raydream.reporting.answers import real_images, student_answers
from raydream.reporting.gallery import gallery, gallery_batches, likeliest, mosaic, picture
from raydream.runs.run_folder import begin
from raydream.store.records import BatchId, ImageBatch
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from tests.reporting.test_figures import make_batch, make_metrics, make_run
from tests.tiny import WIDTH, local_run, tiny_network, tiny_teacher


def opened(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def unknown(images: np.ndarray) -> None:
    return None


def test_all_classes_are_shown_each_with_images_of_all_rounds():
    batches = [make_batch(shown, classes=30) for shown in range(3)]
    made = gallery(batches, unknown, None, "")
    assert made is not None and [label for label, _ in made.classes] == [*range(30)] and made.rounds == [0, 1, 2]
    for label, images in made.classes:
        assert [image.round for image in images] == [0, 0, 1, 1, 2, 2]
        assert all(image.label == label and image.student == () for image in images)
    first = made.classes[4][1][0]
    expected = batches[0].images[np.flatnonzero(batches[0].targets == 4)[0], 0]
    np.testing.assert_array_equal(np.asarray(opened(first.source)), expected)


def test_of_many_classes_each_has_an_image_and_the_page_stays_small():
    made = gallery([make_batch(0, shape=(3, 48, 48), classes=1000)], unknown, None, "")
    assert made is not None and len(made.images) == 1000
    assert sum(len(image.source) for image in made.images) < 5_000_000
    assert max(opened(made.images[0].source).size) < 48


@pytest.mark.parametrize(("shape", "size", "kind"), [((3, 8, 12), (12, 8), "PNG"), ((1, 300, 150), (64, 128), "JPEG")])
def test_pictures_are_as_stored_or_reduced(shape, size, kind):
    made = opened(picture(np.full(shape, 200, np.uint8)))
    assert made.size == size and made.format == kind
    assert abs(int(np.asarray(made).mean()) - 200) <= 1


def test_of_images_without_three_channels_the_first_is_shown():
    image = np.stack([np.full((4, 4), value, np.uint8) for value in (9, 100)])
    assert np.unique(np.asarray(opened(picture(image)))).tolist() == [9]


def test_what_the_teacher_names_decides_whether_an_image_is_on_target():
    batch = make_batch(0)
    logits = np.full_like(batch.teacher_logits, -9.0)
    logits[np.arange(len(logits)), np.where(np.arange(len(logits)) == 3, 7, batch.targets)] = 9.0
    made = gallery([ImageBatch(batch.images, batch.targets, logits, batch.provenance)], unknown, None, "")
    assert made is not None
    missed = [image for image in made.images if not image.on_target]
    assert [image.text for image in missed] == ["class 3, round 0; the teacher names 7 (100%)"]


def test_the_students_answers_and_real_images_stand_beside():
    batches = [make_batch(0)]
    real = Split(np.full((40, 1, 8, 8), 77, np.uint8), np.arange(40) % 10)

    def ask(images: np.ndarray) -> np.ndarray:
        assert len(images) == 40  # two real ones and two of the round, of each class
        return np.eye(10, dtype=np.float32)[np.arange(len(images)) % 10] * 20

    made = gallery(batches, ask, real, "")
    assert made is not None
    assert [image.round for image in made.classes[0][1]] == [None, None, 0, 0]
    assert made.images[3].student[0] == (3, 1.0)
    data = made.data[0]
    assert data["class"] == 0 and data["round"] is None and data["on_target"] is None and data["teacher"] == ()
    assert made.images[0].text == "class 0, a real image"


def test_real_images_of_another_shape_are_left_out():
    real = Split(np.zeros((10, 3, 8, 8), np.uint8), np.arange(10))
    made = gallery([make_batch(0)], unknown, real, "")
    assert made is not None and all(image.round == 0 for image in made.images)


@pytest.mark.parametrize("logits", [[0.0, 0.0], [1e30, -1e30], [np.inf, 0.0], [3.0] * 9])
def test_probabilities_are_numbers_whatever_the_logits(logits):
    named = likeliest(np.array(logits, np.float32))
    assert len(named) == min(5, len(logits)) and all(0 <= share <= 1 for _, share in named)


def test_batches_are_read_until_each_class_has_an_image(tmp_path: Path):
    store = ShardStore(tmp_path / "images")
    whole = make_batch(0)
    for index, labels in enumerate(((0, 1), (2, 3, 4), (5, 6), (7, 8, 9))):
        keep = np.isin(whole.targets, labels)
        made = replace(whole.provenance, batch=str(BatchId(0, index)))
        store.write(ImageBatch(whole.images[keep], whole.targets[keep], whole.teacher_logits[keep], made))
    found = gallery_batches(local_run(tmp_path))
    assert [batch.id.index for batch in found] == [0, 1, 2, 3]
    (tmp_path / "images" / "r0000-b0001.parquet").write_bytes(b"damaged")
    with pytest.raises(ShardError, match="r0000-b0001"):
        gallery_batches(local_run(tmp_path))


def test_no_more_batches_are_read_than_needed_and_allowed(tmp_path: Path, monkeypatch):
    run = make_run(tmp_path / "run", make_metrics(), {}, {})
    assert [batch.id.index for batch in gallery_batches(local_run(run))] == [0] * 4
    store = ShardStore(tmp_path / "few" / "images")
    (tmp_path / "few").mkdir()
    whole = make_batch(0)
    for index in range(9):
        keep = whole.targets == index
        made = replace(whole.provenance, batch=str(BatchId(0, index)))
        store.write(ImageBatch(whole.images[keep], whole.targets[keep], whole.teacher_logits[keep], made))
    monkeypatch.setattr(module, "MOST_READ", 3)
    assert [batch.id.index for batch in gallery_batches(local_run(tmp_path / "few"))] == [0, 7, 8]


def test_a_mosaic_has_a_column_for_each_class_and_gaps():
    a, b = make_batch(0), make_batch(1)
    keep = b.targets != 4
    made = mosaic([("a", a.images, a.targets), ("b", b.images[keep], b.targets[keep])], "", examples=2, most_columns=9)
    assert made.columns == ["0", "1", "2", "3", "5", "6", "7", "8", "9"]
    made = mosaic([("a", a.images, a.targets), ("b", b.images[keep], b.targets[keep])], "", examples=2)
    assert [len(cell) for cell in made.rows[1][1]] == [2, 2, 2, 2, 0, 2, 2, 2, 2, 2]


# --- the student, and real data ---

CONFIG = as_dict(DistillConfig(student={"arguments": {"width": WIDTH}}, teacher={"arguments": {"width": WIDTH}}))


def test_a_runs_student_answers_as_it_does_in_the_run(tmp_path: Path):
    folder, images = begin(str(tmp_path / "run"), CONFIG, "distill"), make_batch(0).images
    assert student_answers(folder, CONFIG, images) is None
    save_network(tiny_network(1), folder.student)
    answers = student_answers(folder, CONFIG, images)
    expected = logits_of(tiny_network(1), tiny_teacher().normalization, images)
    np.testing.assert_array_equal(answers, expected)


DAMAGES = {
    "another network": {"student": {**CONFIG["student"], "arguments": {"width": WIDTH + 4}}},
    "an unknown network": {"student": {**CONFIG["student"], "network": "nothing.like:it"}},
    "no student": {"student": None},
    "no teacher": {"teacher": 7},
    "older settings": {"student": {**CONFIG["student"], "size": 7}},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_student_that_cannot_be_built_has_no_answers(tmp_path: Path, damage: str):
    folder = begin(str(tmp_path / "run"), CONFIG, "distill")
    save_network(tiny_network(1), folder.student)
    assert student_answers(folder, CONFIG | DAMAGES[damage], make_batch(0).images) is None
    folder.student.write_bytes(b"damaged")
    assert student_answers(folder, CONFIG, make_batch(0).images) is None


def test_real_images_are_those_of_the_test_split_if_there_are_any():
    real = real_images(CONFIG)
    assert real is not None and real.images.shape == (500, 1, 8, 8)
    others = ({"name": "none"}, {"name": "files", "test": "none.npz"}, {"name": "torchvision:Nothing"}, 7)
    for data in others:
        assert real_images(CONFIG | {"data": data}) is None
    assert real_images({}) is None
    assert real_images(CONFIG | {"teacher": {**CONFIG["teacher"], "input_shape": [3, 224, 224]}}) is None
