import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raydream.buffer.sampler import permuted_epoch, uniform_draw

seeds, steps, sizes = st.integers(0, 2**40), st.integers(0, 10**6), st.integers(1, 60)


@given(seeds, steps, sizes, sizes)
def test_a_draw_has_its_size_and_its_range(seed, step, images, draw):
    positions = uniform_draw(seed, step, images, draw)
    assert positions.dtype == np.int64 and positions.shape == (draw,)
    assert positions.min() >= 0 and positions.max() < images


@given(seeds, steps, sizes, sizes)
def test_images_come_equally_often_or_once_more(seed, step, images, draw):
    counts = np.bincount(uniform_draw(seed, step, images, draw), minlength=images)
    assert counts.max() - counts.min() <= 1


@given(seeds, steps, sizes, sizes)
def test_a_draw_can_be_repeated(seed, step, images, draw):
    np.random.seed(step % 1000)
    assert np.array_equal(uniform_draw(seed, step, images, draw), uniform_draw(seed, step, images, draw))


def test_steps_and_run_seeds_draw_differently():
    draws = {uniform_draw(seed, step, 100, 20).tobytes() for seed in range(5) for step in range(20)}
    assert len(draws) == 100


def test_every_image_is_drawn_equally_often_in_the_long_run():
    counts = sum(np.bincount(uniform_draw(3, step, 10, 3), minlength=10) for step in range(2000))
    assert np.abs(counts - 600).max() < 100  # four and a half standard deviations


def test_the_order_within_a_draw_is_random():
    first = np.bincount([uniform_draw(1, step, 4, 4)[0] for step in range(400)], minlength=4)
    assert first.min() > 60


@given(seeds, steps, st.integers(1, 60), st.data())
def test_an_epoch_has_every_image_once_in_steps_as_even_as_they_can_be(seed, epoch, images, data):
    count = data.draw(st.integers(1, images))
    rows = permuted_epoch(seed, epoch, images, count)
    assert sorted(np.concatenate(rows)) == list(range(images))
    sizes = [len(step) for step in rows]
    assert len(sizes) == count and max(sizes) - min(sizes) <= 1


def test_epochs_have_orders_of_their_own_that_can_be_repeated():
    def order(seed, epoch):
        return np.concatenate(permuted_epoch(seed, epoch, 50, 7)).tobytes()

    assert order(1, 2) == order(1, 2)
    assert len({order(seed, epoch) for seed in range(4) for epoch in range(4)}) == 16
