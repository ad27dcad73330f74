"""The images of a run, as others open them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from raydream.data import ImageSet, export_folder
from raydream.errors import InputError, ShardError
from raydream.store.records import ImageBatch
from raydream.store.shards import ShardStore
from tests.tiny import shard_path, some_batch


@pytest.fixture
def batches() -> list[ImageBatch]:
    return [some_batch("r0000-b0000", 5), some_batch("r0000-b0001", 3), some_batch("r0001-b0000", 4)]


@pytest.fixture
def folder(tmp_path: Path, batches: list[ImageBatch]) -> Path:
    (tmp_path / "run").mkdir()
    store = ShardStore(tmp_path / "run" / "images")
    for batch in reversed(batches):
        store.write(batch)
    return tmp_path / "run"


def test_torch_sees_all_images_in_the_order_of_their_batches(folder, batches):
    images = np.concatenate([batch.images for batch in batches])
    targets = np.concatenate([batch.targets for batch in batches])
    for path in (folder, str(folder / "images")):
        found = ImageSet(path)
        assert len(found) == 12
        assert all(np.array_equal(found[row][0], images[row]) and found[row][1] == targets[row] for row in range(12))
    for outside in (-1, 12):
        with pytest.raises(IndexError):
            found[outside]
    loaded = list(DataLoader(ImageSet(folder, lambda image: image.float() / 255), batch_size=5))
    assert torch.equal(torch.cat([x for x, _ in loaded]), torch.from_numpy(images).float() / 255)
    assert torch.equal(torch.cat([y for _, y in loaded]), torch.from_numpy(targets))


def test_pandas_and_pyarrow_open_all_shards_at_once(folder, batches):
    images = np.concatenate([batch.images for batch in batches])
    frame = pd.read_parquet(folder / "images")
    assert np.array_equal(np.stack(frame["image"]).reshape(12, 3, 4, 6), images)
    assert list(frame["batch"]) == ["r0000-b0000"] * 5 + ["r0000-b0001"] * 3 + ["r0001-b0000"] * 4
    assert pq.read_table(folder / "images").num_rows == 12


def test_an_export_is_an_image_folder_with_the_same_pixels(folder, batches, tmp_path):
    to = tmp_path / "png"
    assert export_folder(folder, to) == 12
    found = ImageFolder(str(to))
    assert len(found) == 12
    by_name = {Path(path).stem: (path, int(found.classes[index])) for path, index in found.samples}
    for batch in batches:
        for row in range(len(batch)):
            path, target = by_name[f"{batch.id}-{row:05d}"]
            assert target == batch.targets[row]
            pixels = np.asarray(found.loader(path)).transpose(2, 0, 1)
            assert np.array_equal(pixels, batch.images[row])


def test_an_export_is_whole_or_absent_and_overwrites_nothing(folder, tmp_path):
    to = tmp_path / "png"
    leftover = tmp_path / ".png.aside" / "0099"
    leftover.mkdir(parents=True)
    store = ShardStore(folder / "images")
    shard_path(store, some_batch("r0001-b0000").id).write_bytes(b"damaged")
    with pytest.raises(ShardError):
        export_folder(folder, to)
    assert not to.exists()
    store.quarantine_damaged()
    store.write(some_batch("r0001-b0000", 4))
    export_folder(folder, to)
    assert not (to / "0099").exists() and not leftover.exists()
    with pytest.raises(InputError, match="new or empty"):
        export_folder(folder, to)


def test_what_is_no_picture_is_said_so(tmp_path):
    ShardStore(tmp_path / "images").write(some_batch("r0000-b0000", 2, (5, 4, 4)))
    with pytest.raises(ShardError, match="5 channels"):
        export_folder(tmp_path, tmp_path / "png")


@pytest.mark.parametrize("name", ["no_such_folder", "empty"])
def test_a_folder_without_images_is_refused_and_not_made(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there are none in it"):
        ImageSet(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"] and not list((tmp_path / "empty").iterdir())
