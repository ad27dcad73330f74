"""The figures of a set of images, against those of all its batches in memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raydream.errors import ShardError
from raydream.store.records import BatchId, ImageBatch
from raydream.store.shards import ShardStore
from raydream.synthesis.figures import figures_of
from tests.tiny import shard_path, some_batch


class WithoutPixels(ShardStore):
    """Shards of which none may be read whole."""

    def read(self, batch: BatchId) -> ImageBatch:
        raise AssertionError(f"the pixels of {batch} were read")


@pytest.fixture
def batches(tmp_path: Path) -> list[ImageBatch]:
    made = []
    for index, count in enumerate((3, 5, 8)):
        batch = some_batch(f"r0000-b{index:04d}", count=count)
        losses = {"tv": 0.1 * index, "feature": 1 / (1 + index)}
        made.append(
            replace(batch, provenance=replace(batch.provenance, target_share=index / 3, losses=losses, restarts=index))
        )
        ShardStore(tmp_path).write(made[-1])
    return made


def test_they_are_those_of_the_whole_set_and_no_pixel_is_read(tmp_path: Path, batches: list[ImageBatch]) -> None:
    store = WithoutPixels(tmp_path)
    figures = figures_of(store, store.committed(), 7)
    targets = np.concatenate([batch.targets for batch in batches])
    assert figures.images == len(targets) == 16 and figures.batches == 3
    assert figures.images_per_class.tolist() == [int((targets == label).sum()) for label in range(7)]
    assert figures.target_share == pytest.approx((0 * 3 + 1 / 3 * 5 + 2 / 3 * 8) / 16)
    assert figures.losses == pytest.approx({"tv": (0.5 + 1.6) / 16, "feature": (3 + 2.5 + 8 / 3) / 16})
    assert figures.restarts == 3 and figures.teacher == batches[0].provenance.teacher


@pytest.mark.parametrize("damage", ["cut", "absent", "flipped"])
def test_a_damaged_shard_is_named(tmp_path: Path, batches: list[ImageBatch], damage: str) -> None:
    store, batch = ShardStore(tmp_path), batches[1].id
    path = shard_path(store, batch)
    content = path.read_bytes()
    flipped = content.replace(b"PAR1", b"XXXX")
    {
        "cut": lambda: path.write_bytes(content[:-20]),
        "absent": path.unlink,
        "flipped": lambda: path.write_bytes(flipped),
    }[damage]()
    with pytest.raises(ShardError, match=f"{batch}.parquet cannot be read"):
        figures_of(store, [each.id for each in batches], 7)
