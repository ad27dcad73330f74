"""Damaged files of images are refused in one sentence, or read as images of the right shape; nothing else happens."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raydream.data.files import open_files
from raydream.errors import InputError
from tests.fuzz.mutations import MUTATIONS, mutated

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore")]

SHAPE, COUNT = (3, 8, 8), 6
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)


def written(folder: Path, kind: str) -> tuple[Path, Path]:
    """What is named, and the file of it that is damaged."""
    if kind == "npz":
        np.savez(folder / "a.npz", x=PIXELS, y=np.arange(COUNT))
        return folder / "a.npz", folder / "a.npz"
    if kind == "parquet":
        rows = {"image": [image.transpose(2, 0, 1).tobytes() for image in PIXELS], "label": list(range(COUNT))}
        pq.write_table(pa.table(rows), folder / "a.parquet", write_page_checksum=True)
        return folder / "a.parquet", folder / "a.parquet"
    pictures = folder / f"pictures-{kind}"
    (pictures / "a").mkdir(parents=True)
    for row, image in enumerate(PIXELS):
        Image.fromarray(image).save(pictures / "a" / f"{row}.{kind}")
    return pictures, pictures / "a" / f"2.{kind}"


@pytest.mark.parametrize("kind", ["npz", "parquet", "png", "jpg", "webp", "bmp"])
@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_damage_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, kind: str, mutations: list[tuple]) -> None:
    named, file = written(tmp_path_factory.mktemp("files"), kind)
    file.write_bytes(mutated(file.read_bytes(), mutations))
    try:
        source = open_files(str(named), "images", SHAPE)
        count = sum(source.parts)
        images, labels = source.read(np.arange(count)), source.labels()
    except InputError as refused:
        assert refused.field == "images" and "\n" not in str(refused)
    else:
        assert images.shape == (count, *SHAPE) and images.dtype == np.uint8 and len(labels) == count
        if kind in ("npz", "parquet"):  # which have checksums, all but for their descriptions
            assert np.array_equal(images, PIXELS.transpose(0, 3, 1, 2)[:count])
