import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydream.buffer.index import BufferIndex, gather
from raydream.store.records import BatchId

ids = st.builds(BatchId, st.integers(0, 4), st.integers(0, 5))


def filled(batches, batch_images: int = 3) -> BufferIndex:
    index = BufferIndex(batch_images, 1000)
    for batch in batches:
        index.insert(batch, f"handle of {batch}")
    return index


@given(st.lists(ids, min_size=1))
def test_batches_are_ordered_by_id_whatever_the_order_of_arrival(batches):
    index = filled(batches)
    assert index.locate([np.arange(index.count() * 3)]).batches == sorted(set(batches))


@given(st.lists(ids))
def test_a_batch_is_new_once(batches):
    index, seen = BufferIndex(3, 1000), set()
    for batch in batches:
        assert index.insert(batch, "a handle") == (batch not in seen)
        seen.add(batch)
    assert index.count() == len(seen)


@given(st.lists(ids), st.integers(0, 5))
def test_counting_up_to_a_round(batches, up_to):
    assert filled(batches).count(up_to) == sum(batch.round <= up_to for batch in set(batches))
    assert filled(batches).count() == len(set(batches))


@given(st.lists(ids, min_size=1, unique=True), st.integers(1, 4), st.data())
def test_positions_lead_to_the_images_of_all_batches_laid_end_to_end(batches, batch_images, data):
    index = filled(batches, batch_images)
    laid_out = [(batch, row) for batch in sorted(batches) for row in range(batch_images)]
    one_step = st.lists(st.integers(0, len(laid_out) - 1), min_size=1, max_size=8)
    steps = data.draw(st.lists(one_step, min_size=1, max_size=4))
    draw = index.locate([np.array(step, dtype=np.int64) for step in steps])
    assert len(draw.picks) == len(steps)
    for step, picks in zip(steps, draw.picks, strict=True):
        assert [(draw.batches[which], row) for which, row in picks] == [laid_out[position] for position in step]
    assert index.handles(draw.batches) == [f"handle of {batch}" for batch in draw.batches]
    assert draw.batches == sorted({laid_out[position][0] for step in steps for position in step})


def test_a_handle_may_come_later_but_is_not_replaced():
    index, batch = BufferIndex(1, 1000), BatchId(0, 0)

    def handle() -> object:
        return index.handles([batch])[0]

    assert index.insert(batch) and handle() is None
    assert not index.insert(batch, "first") and handle() == "first"
    assert not index.insert(batch, "second") and handle() == "first"
    assert not index.insert(batch, None) and handle() == "first"


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_workers_share_a_draw_evenly_and_without_overlap(workers):
    index = filled([BatchId(0, i) for i in range(4)])
    positions = [np.random.default_rng(step).permutation(12) for step in range(3)]
    draw = index.locate(positions)
    parts = [draw.part(rank, workers) for rank in range(workers)]
    for step in range(3):
        shares = [part.picks[step] for part in parts]
        assert {len(share) for share in shares} == {12 // workers}
        together = sorted(tuple(pick) for share in shares for pick in share)
        assert together == sorted(tuple(pick) for pick in draw.picks[step])
        assert len(set(together)) == 12
    assert all(part.batches == draw.batches for part in parts)


def test_an_only_worker_takes_all_in_the_order_drawn():
    draw = filled([BatchId(0, i) for i in range(4)]).locate([np.array([11, 0, 5])])
    assert draw.part(0, 1).picks[0].tolist() == draw.picks[0].tolist() == [[2, 2], [0, 0], [1, 2]]


@given(st.lists(ids, min_size=1, unique=True), st.integers(1, 6))
def test_only_so_many_handles_are_kept_and_every_batch_can_still_be_drawn(batches, most):
    index = BufferIndex(1, most)
    for batch in batches:
        index.insert(batch, f"handle of {batch}")
    assert index.locate([np.arange(len(batches))]).batches == sorted(batches)
    kept = set(batches[-most:])
    assert index.handles(batches) == [f"handle of {batch}" if batch in kept else None for batch in batches]
    assert index.count() == len(batches) and not index.insert(batches[0])


def test_images_are_gathered_in_the_order_picked_and_copied():
    arrays = [np.random.default_rng(seed).integers(0, 256, (3, 2, 4, 5), dtype=np.uint8) for seed in range(2)]
    picks = np.array([[1, 2], [0, 0], [1, 2], [1, 0]])
    images = gather(arrays, picks)
    assert images.shape == (4, 2, 4, 5) and images.dtype == np.uint8 and images.flags.writeable
    np.testing.assert_array_equal(images, np.stack(arrays)[picks[:, 0], picks[:, 1]])
    assert not any(np.shares_memory(images, array) for array in arrays)
