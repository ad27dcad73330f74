import pickle

import numpy as np
import pytest

from raydream.data.sources import Images, Shards, by_part, evenly_spread
from raydream.errors import ShardError
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from tests.tiny import shard_path, some_batch

SIZES = [4, 1, 6, 3]


@pytest.fixture
def numbered(tmp_path) -> Shards:
    """14 images in four shards, each of which holds its number."""
    store, first = ShardStore(tmp_path), 0
    for index, count in enumerate(SIZES):
        batch = some_batch(f"r0000-b{index:04d}", count, (1, 4, 6))
        batch.images[:, 0, 0, 0] = np.arange(first, first + count)
        store.write(batch)
        first += count
    return Shards.of(store)


@pytest.mark.parametrize("rows", [[0], [3, 4, 5], [13], [0, 4, 13], list(range(14)), [5, 10, 11]])
def test_rows_are_those_of_all_shards_in_order(numbered, rows):
    assert numbered.read(np.array(rows))[:, 0, 0, 0].tolist() == rows


def test_rows_by_part():
    found = [(part, inner.tolist()) for part, inner in by_part(SIZES, np.array([0, 3, 4, 10, 11, 13]))]
    assert found == [(0, [0, 3]), (1, [0]), (2, [5]), (3, [0, 2])]


def test_all_images_come_part_by_part(numbered):
    pieces = Images.of(numbered).pieces()
    assert [len(piece) for piece in pieces] == SIZES
    assert np.concatenate(pieces).tolist() == list(range(14))


def test_a_share_is_drawn_by_the_seed_and_no_image_twice(numbered):
    half = Images.of(numbered, 0.5, seed=1)
    assert len(half) == 7 and len(set(half.rows)) == 7 and half.rows.tolist() == sorted(half.rows)
    assert half.rows.tolist() == Images.of(numbered, 0.5, seed=1).rows.tolist()
    assert half.rows.tolist() != Images.of(numbered, 0.5, seed=2).rows.tolist()
    assert np.concatenate(half.pieces()).tolist() == half.rows.tolist()
    for piece in half.pieces():
        assert len({part for part, _ in by_part(SIZES, piece)}) == 1


def test_a_larger_share_holds_the_images_of_a_smaller_one(numbered):
    less, more = (set(Images.of(numbered, share, seed=3).rows) for share in (0.3, 0.8))
    assert less < more


def test_a_small_share_is_one_image_at_least(numbered):
    assert len(Images.of(numbered, 1e-9)) == 1


def test_what_travels_holds_no_pixels(numbered):
    numbered.read(np.arange(14))
    assert len(pickle.dumps(Images.of(numbered))) < 4000


def test_a_damaged_shard_is_told(numbered):
    shard_path(numbered.store, BatchId(0, 2)).write_bytes(b"PAR1")
    with pytest.raises(ShardError, match="r0000-b0002"):
        numbered.read(np.array([6]))
    assert numbered.read(np.array([0])).shape == (1, 1, 4, 6)


@pytest.mark.parametrize(
    ("count", "most", "shown"),
    [(3, 8, [0, 1, 2]), (8, 8, list(range(8))), (9, 3, [0, 4, 8]), (1000, 4, [0, 333, 666, 999]), (0, 8, [])],
)
def test_evenly_spread(count: int, most: int, shown: list[int]) -> None:
    assert evenly_spread(range(count), most) == shown
