"""What gets images to a student: all of them once an epoch, from memory or streamed, and no damaged pixel."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.data
import ray.train
import ray.train.torch
import torch
from PIL import Image

from raydream.data.files import open_files
from raydream.data.sources import Images, Shards
from raydream.errors import InputError, ShardError
from raydream.runtime.failures import own_error
from raydream.runtime.feeds import MemoryFeed, choose_feed
from raydream.runtime.streaming import StreamFeed, resized
from raydream.schedule import Epochs
from raydream.store.shards import ShardStore
from tests.tiny import shard_path, some_batch


@pytest.mark.parametrize(
    ("asked", "images_bytes", "feed"),
    [
        ("auto", 50, "memory"),
        ("auto", 51, "stream"),
        ("memory", 100, "memory"),
        ("memory", 101, None),
        ("stream", 1, "stream"),
        ("stream", 10**6, "stream"),
    ],
)
def test_sets_that_outgrow_memory_are_streamed(asked: str, images_bytes: int, feed: str | None) -> None:
    if feed is None:
        with pytest.raises(InputError, match="feed = 'memory': must be stream for"):
            choose_feed(asked, images_bytes, 100)
    else:
        assert choose_feed(asked, images_bytes, 100) == feed


@pytest.mark.parametrize("given", [[10], [3, 3, 3, 1], [1, 9], [4, 4, 2], [1] * 10])
@pytest.mark.parametrize("sizes", [[10], [4, 3, 3], [5, 5], [1] * 10])
def test_batches_of_any_sizes_become_batches_of_the_sizes_asked_for(given: list[int], sizes: list[int]) -> None:
    numbers = torch.arange(10)
    made = list(resized(iter(torch.split(numbers, given)), sizes))
    assert [len(batch) for batch in made] == sizes and torch.equal(torch.cat(made), numbers)
    for wrong in ([*sizes, 1], [11], [9], [*sizes[:-1], sizes[-1] - 1] if sizes[-1] > 1 else [9]):
        with pytest.raises(ValueError, match="images were expected"):
            list(resized(iter(torch.split(numbers, given)), wrong))


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> ShardStore:
    """61 images in six shards, each of which holds its number."""
    store, first = ShardStore(tmp_path_factory.mktemp("numbered")), 0
    for index, count in enumerate([10, 11, 9, 10, 11, 10]):
        batch = some_batch(f"r0000-b{index:04d}", count, (1, 4, 6))
        batch.images[:, 0, 0, 0] = np.arange(first, first + count)
        store.write(batch)
        first += count
    return store


@pytest.mark.long
def test_every_image_is_seen_once_an_epoch_by_one_worker(numbered: ShardStore, joined: None, tmp_path: Path) -> None:
    epochs = Epochs(images=61, batch_size=16, count=2)
    feeds = {
        "memory": MemoryFeed.fill(Images.of(Shards.of(numbered)), (1, 4, 6), epochs, 3),
        "stream": StreamFeed(Images.of(Shards.of(numbered)), (1, 4, 6), epochs, 3, 32 * 10 * 24),
    }

    def look(given: dict) -> None:
        rank = ray.train.get_context().get_world_rank()
        for name, feed in given.items():
            for epoch in range(2):
                seen = [batch[:, 0, 0, 0].tolist() for batch in feed.epoch(epoch, rank, 2)]
                (tmp_path / f"{name}-{epoch}-{rank}.json").write_text(json.dumps(seen))

    ray.train.torch.TorchTrainer(
        look,
        train_loop_config=feeds,
        datasets=feeds["stream"].datasets(0),  # type: ignore[attr-defined]
        scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=ray.train.RunConfig(storage_path=str(tmp_path / "train")),
    ).fit()
    orders = set()
    for name in feeds:
        for epoch in range(2):
            parts = [json.loads((tmp_path / f"{name}-{epoch}-{rank}.json").read_text()) for rank in range(2)]
            assert [len(part) for part in parts] == [4, 4]
            seen = [number for part in parts for batch in part for number in batch]
            assert len(set(seen)) == len(seen), "no image twice"
            assert len(seen) == (61 if name == "memory" else 60)
            sizes = [len(one) + len(other) for one, other in zip(*parts, strict=True)]
            assert max(sizes) <= 16 and max(sizes) - min(sizes) <= 2
            orders.add(tuple(seen))
            assert seen != sorted(seen)
    assert len(orders) == 4, "another order in each epoch"


@pytest.mark.parametrize("kind", ["parquet", "npz", "pictures"])
def test_a_share_of_other_peoples_images_is_streamed_once_an_epoch(kind: str, joined: None, tmp_path: Path) -> None:
    pixels = np.zeros((60, 1, 4, 6), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(60)
    where = tmp_path / "set" if kind == "pictures" else tmp_path / f"set.{kind}"
    if kind == "parquet":
        table = pa.table({"image": [image.tobytes() for image in pixels]})
        pq.write_table(table, where, row_group_size=7, write_page_checksum=True)
    elif kind == "npz":
        np.savez(where, x=pixels[:, 0])
    else:
        where.mkdir()
        for row, image in enumerate(pixels):
            Image.fromarray(image[0]).save(where / f"{row:03d}.png")
    chosen = Images.of(open_files(str(where), "images", (1, 4, 6)), 0.5, 3)
    streamed = StreamFeed(chosen, (1, 4, 6), Epochs(30, 10, 1), 3, 2**25).datasets(0)["images"]
    seen = [int(row["image"][0, 0, 0]) for row in streamed.take_all()]
    assert sorted(seen) == chosen.rows.tolist()


def test_a_damaged_shard_is_no_other_pixel_in_a_stream(numbered: ShardStore, joined: None, tmp_path: Path) -> None:
    shutil.copytree(str(numbered.folder), tmp_path / "images")
    store = ShardStore(tmp_path / "images")
    path = shard_path(store, store.committed()[2])
    whole = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(0)
    (column,) = [column for column in map(group.column, range(5)) if column.path_in_schema.startswith("image")]
    where = column.dictionary_page_offset + column.total_compressed_size // 2
    path.write_bytes(whole[:where] + bytes([whole[where] ^ 1]) + whole[where + 1 :])
    streamed = StreamFeed(Images.of(Shards.of(store)), (1, 4, 6), Epochs(61, 16, 1), 3, 2**25).datasets(0)["images"]
    with pytest.raises(ray.exceptions.RayTaskError) as failed:
        streamed.take_all()
    assert isinstance(own_error(failed.value, ""), ShardError) and path.name in str(failed.value)
