"""Images in files that others have made: what is read is what was written; what cannot be is said in one sentence."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raydream.data.files import decoded, open_files
from raydream.errors import InputError
from raydream.store.shards import ShardStore
from tests.tiny import some_batch

SHAPE = (3, 4, 6)
COUNT = 11


def pixels(shape: tuple[int, ...] = SHAPE, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def png(image: np.ndarray, mode: str | None = None) -> bytes:
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, "PNG")
    return file.getvalue()


def write_parquet(path: Path, images: list, labels: list | None = None, column: str = "image", group: int = 4) -> Path:
    table = {column: images} | ({} if labels is None else {"label": labels})
    pq.write_table(pa.table(table), path, row_group_size=group, write_page_checksum=True)
    return path


def write_folder(path: Path, images: np.ndarray, classes: list[str]) -> Path:
    for row, (image, name) in enumerate(zip(images, classes, strict=True)):
        (path / name).mkdir(parents=True, exist_ok=True)
        (path / name / f"{row:03d}.png").write_bytes(png(image))
    return path


LABELS = [row % 5 for row in range(COUNT)]


def parquet_png(folder: Path, images: np.ndarray) -> Path:
    return write_parquet(folder / "a.parquet", [png(image) for image in images], LABELS, "png")


def parquet_raw(folder: Path, images: np.ndarray) -> Path:
    return write_parquet(folder / "a.parquet", [image.tobytes() for image in images], LABELS)


def parquet_struct(folder: Path, images: np.ndarray) -> Path:
    return write_parquet(folder / "a.parquet", [{"bytes": png(image), "path": None} for image in images], LABELS, "img")


def parquet_list(folder: Path, images: np.ndarray) -> Path:
    flat = pa.array(images.reshape(-1))
    return write_parquet(folder / "a.parquet", pa.FixedSizeListArray.from_arrays(flat, images[0].size), LABELS)


def parquet_files(folder: Path, images: np.ndarray) -> Path:
    for index, rows in enumerate(np.array_split(np.arange(COUNT), 3)):
        write_parquet(
            folder / f"{index}.parquet", [png(images[row]) for row in rows], [LABELS[row] for row in rows], "png", 2
        )
    return folder


def npz(folder: Path, images: np.ndarray) -> Path:
    np.savez(folder / "a.npz", x=images.transpose(0, 2, 3, 1), y=np.array(LABELS, np.int32))
    return folder / "a.npz"


KINDS = [parquet_png, parquet_raw, parquet_struct, parquet_list, parquet_files, npz]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("shape", [SHAPE, (1, 4, 6)], ids=str)
def test_what_is_read_is_what_was_written(kind, shape, tmp_path):
    images = pixels(shape)
    source = open_files(str(kind(tmp_path, images)), "images", shape)
    assert sum(source.parts) == COUNT
    assert np.array_equal(source.read(np.arange(COUNT)), images)
    assert source.labels().tolist() == LABELS and source.labels().dtype == np.int64
    for rows in ([0], [10], [3, 4, 9], [0, 1, 2, 3, 5, 8]):
        assert np.array_equal(source.read(np.array(rows)), images[rows])


def test_a_url_is_read_as_a_path_is(tmp_path):
    images = pixels()
    source = open_files(parquet_png(tmp_path, images).as_uri(), "images", SHAPE)
    assert np.array_equal(source.read(np.arange(COUNT)), images)


def test_grey_images_of_two_dimensions(tmp_path):
    images = pixels((1, 4, 6))
    np.savez(tmp_path / "gray.npz", x=images[:, 0])
    source = open_files(str(tmp_path / "gray.npz"), "images", (1, 4, 6))
    assert np.array_equal(source.read(np.arange(COUNT)), images)
    with pytest.raises(InputError, match="labeled, by y"):
        source.labels()


@pytest.mark.parametrize(
    ("names", "classes"),
    [(["cat", "ant", "bee"], [0, 1, 2]), (["0007", "0002", "0010"], [2, 7, 10]), (["9", "10", "x"], [0, 1, 2])],
)
def test_folders_of_pictures_are_classes_by_order_or_by_number(names, classes, tmp_path):
    images = pixels(count=9)
    write_folder(tmp_path, images, [names[row % 3] for row in range(9)])
    source = open_files(str(tmp_path), "data.train", SHAPE)
    order = [row for name in sorted(names) for row in range(9) if names[row % 3] == name]
    assert np.array_equal(source.read(np.arange(9)), images[order])
    assert source.labels().tolist() == [label for label in classes for _ in range(3)]


def test_pictures_that_lie_in_no_folder_have_no_labels(tmp_path):
    images = pixels(count=3)
    write_folder(tmp_path, images, ["."] * 3)
    (tmp_path / "README.md").write_text("not a picture")
    source = open_files(str(tmp_path), "images", SHAPE)
    assert np.array_equal(source.read(np.arange(3)), images)
    with pytest.raises(InputError, match="labeled, by a folder for each class"):
        source.labels()


def test_the_images_of_a_shard_are_found_by_other_readers_too(tmp_path):
    batch = some_batch(shape=SHAPE)
    ShardStore(tmp_path).write(batch)
    (tmp_path / f"{batch.id}.parquet").rename(tmp_path / "elsewhere.parquet")
    source = open_files(str(tmp_path / "elsewhere.parquet"), "images", SHAPE)
    assert np.array_equal(source.read(np.arange(5)), batch.images)
    assert source.labels().tolist() == batch.targets.tolist()
    with pytest.raises(InputError, match=r"images \(3, 6, 4\); those in elsewhere.parquet are \(3, 4, 6\)"):
        open_files(str(tmp_path / "elsewhere.parquet"), "images", (3, 6, 4))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK"])
def test_colors_of_other_kinds_become_red_green_and_blue(mode):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (255, 0, 0)).convert(mode).save(file, "TIFF" if mode == "CMYK" else "PNG")
    found = decoded(file.getvalue(), SHAPE)
    expected = [76] * 3 if mode == "L" else [255, 0, 0]
    assert found.shape == SHAPE and (found == np.array(expected)[:, None, None]).all()


def broken_png() -> bytes:
    whole = png(pixels()[0])
    return whole[: len(whole) // 2]


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-20])
    return path


def turned(path: Path) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    return path


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def touched(path: Path, content: bytes = b"") -> Path:
    path.write_bytes(content)
    return path


BAD = [
    # (what is named, what is asked of it, a part of the sentence)
    (lambda tmp: tmp / "none", "open", "a folder of pictures; nothing is there"),
    (lambda tmp: tmp / "none.npz", "open", "a folder of pictures; nothing is there"),
    (lambda tmp: tmp, "open", "a folder of pictures; nothing is there"),
    (lambda tmp: touched(tmp / "a.txt").parent, "open", "a folder of pictures; there is none of these in it"),
    (lambda tmp: touched(tmp / "a.zip"), "open", "the file is none of these"),
    (lambda tmp: touched(tmp / "a.parquet"), "open", "files that can be read; reading a.parquet failed"),
    (lambda tmp: cut(parquet_png(tmp, pixels())), "open", "files that can be read; reading a.parquet failed"),
    (lambda tmp: write_parquet(tmp / "a.parquet", [b""], [1], "photo"), "open", "one of the columns image, img, jpeg"),
    (lambda tmp: write_parquet(tmp / "a.parquet", [], []), "open", "there are none in it"),
    (lambda tmp: write_parquet(tmp / "a.parquet", [b"1"] * 3), "read", "row 0 of a.parquet is no picture, and 1 bytes"),
    (lambda tmp: write_parquet(tmp / "a.parquet", [None] * 3), "read", "row 0 of a.parquet is no picture, and 0 bytes"),
    (
        lambda tmp: write_parquet(tmp / "a.parquet", [*(png(image) for image in pixels()), png(pixels((3, 6, 4))[0])]),
        "read",
        "must be images (3, 4, 6); row 11 of a.parquet is (3, 6, 4)",
    ),
    (lambda tmp: write_parquet(tmp / "a.parquet", [broken_png()]), "read", "row 0 of a.parquet"),
    (lambda tmp: turned(parquet_raw(tmp, pixels())), "read", "reading a.parquet failed"),
    (lambda tmp: write_parquet(tmp / "a.parquet", [b"x"]), "labels", "labeled, by one of the columns label, target"),
    (lambda tmp: write_parquet(tmp / "a.parquet", [b"x"], [0.5]), "labels", "whole numbers, without a gap"),
    (lambda tmp: write_parquet(tmp / "a.parquet", [b"x"] * 2, [1, None]), "labels", "whole numbers, without a gap"),
    (lambda tmp: write_parquet(tmp / "a.parquet", [b"x"], ["cat"]), "labels", "whole numbers, without a gap"),
    (lambda tmp: touched(tmp / "a.npz", b"PK"), "open", "reading a.npz failed"),
    (lambda tmp: saved(tmp / "a.npz", images=pixels()), "open", "a file with x, uint8 [N,H,W,C] or [N,H,W]; there is"),
    (lambda tmp: saved(tmp / "a.npz", x=pixels().astype(float)), "open", "x is float64 [11, 3, 4, 6]"),
    (lambda tmp: saved(tmp / "a.npz", x=np.array([{}])), "open", "reading a.npz failed"),
    (lambda tmp: saved(tmp / "a.npz", x=pixels()), "open", "images (3, 4, 6); those in a.npz are (6, 3, 4)"),
    (lambda tmp: saved(tmp / "a.npz", x=pixels((4, 6, 3))[:0]), "open", "there are none in it"),
    (lambda tmp: saved(tmp / "a.npz", x=pixels((4, 6, 3)), y=np.arange(10)), "labels", "not one for each image"),
    (lambda tmp: write_folder(tmp, pixels((3, 6, 4)), ["a"] * COUNT), "read", "000.png is (3, 6, 4)"),
    (lambda tmp: touched(tmp / "a.png", b"no png").parent, "read", "a.png is no picture"),
    (lambda tmp: touched(tmp / "a.png", broken_png()).parent, "read", "a.png"),
]


@pytest.mark.parametrize(
    ("made", "asked", "says"), BAD, ids=[f"{index} {says[:30]}" for index, (*_, says) in enumerate(BAD)]
)
def test_bad_files_are_refused_in_one_sentence(made, asked, says, tmp_path):
    where = str(made(tmp_path))
    with pytest.raises(InputError) as refused:
        source = open_files(where, "images", SHAPE)
        if asked == "read":
            source.read(np.arange(sum(source.parts)))
        elif asked == "labels":
            source.labels()
    assert refused.value.field == "images" and refused.value.value == where
    assert says in str(refused.value) and "\n" not in str(refused.value), str(refused.value)


def test_colored_pictures_are_not_made_grey():
    with pytest.raises(ValueError, match=r"is colored \(RGB\)"):
        decoded(png(pixels()[0]), (1, 4, 6))


def test_what_lies_together_in_a_folder_is_read_together(tmp_path):
    write_folder(tmp_path, pixels(count=300), ["a"] * 300)
    assert open_files(str(tmp_path), "images", SHAPE).parts == [256, 44]


@pytest.mark.parametrize("first", [b"\x0c\x00\x00\x00", b"BM\x00\x00", b"\x89PNG", b"P5 1", b"GIF8", b"RIFF"])
def test_pixels_that_begin_as_a_file_does_are_pixels(first):
    content = first + bytes(range(20))
    assert decoded(content, (1, 4, 6)).tobytes() == content
    with pytest.raises((ValueError, OSError)):
        decoded(content + b"\x00", (1, 4, 6))
