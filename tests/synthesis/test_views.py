import math

import pytest
import torch

from raydream.synthesis.inversion import decay_factor, random_view
from tests.tiny import tiny_synthesis


def distinct(count: int = 3, height: int = 6, width: int = 7) -> torch.Tensor:
    return torch.arange(count * height * width, dtype=torch.float32).view(count, 1, height, width)


def slow_roll(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    rolled = torch.empty_like(x)
    height, width = x.shape[2:]
    for i in range(height):
        for j in range(width):
            rolled[..., (i + down) % height, (j + right) % width] = x[..., i, j]
    return rolled


def test_without_jitter_and_flip_the_view_is_the_batch():
    x = distinct()
    view = random_view(x, tiny_synthesis(jitter=0, flip=False), torch.Generator().manual_seed(0))
    assert torch.equal(view, x)


def test_jitter_rolls_the_whole_batch_by_every_shift_up_to_its_size():
    x, random = distinct(), torch.Generator().manual_seed(0)
    allowed = [slow_roll(x, down, right) for down in range(-2, 3) for right in range(-2, 3)]
    seen = set()
    for _ in range(300):
        view = random_view(x, tiny_synthesis(jitter=2), random)
        (shift,) = [index for index, rolled in enumerate(allowed) if torch.equal(rolled, view)]
        seen.add(shift)
    assert len(seen) == 25


def test_flip_mirrors_the_whole_batch_about_half_of_the_time():
    x, random = distinct(), torch.Generator().manual_seed(0)
    config = tiny_synthesis(jitter=0, flip=True)
    mirrored = 0
    for _ in range(400):
        view = random_view(x, config, random)
        assert torch.equal(view, x) or torch.equal(view, x.flip(3))
        mirrored += torch.equal(view, x.flip(3))
    assert 150 < mirrored < 250


def test_gradients_go_back_to_the_pixels_they_came_from():
    x = distinct().requires_grad_()
    view = random_view(x, tiny_synthesis(jitter=2, flip=True), torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad((view * view.detach()).sum(), x)
    assert torch.equal(gradient, x.detach())


def test_views_depend_on_the_generator_alone():
    x, config = distinct(), tiny_synthesis(jitter=2, flip=True)
    torch.manual_seed(1)
    first = [random_view(x, config, g) for g in [torch.Generator().manual_seed(5)] for _ in range(20)]
    torch.manual_seed(2)
    second = [random_view(x, config, g) for g in [torch.Generator().manual_seed(5)] for _ in range(20)]
    other = [random_view(x, config, g) for g in [torch.Generator().manual_seed(6)] for _ in range(20)]
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, other))


def test_a_constant_learning_rate_stays():
    assert {decay_factor(tiny_synthesis(decay="constant"), i) for i in range(6)} == {1.0}


def test_the_cosine_falls_from_one_through_a_half_towards_zero():
    config = tiny_synthesis(decay="cosine", iterations=100)
    factors = [decay_factor(config, iteration) for iteration in range(100)]
    assert factors[0] == 1.0 and factors[50] == pytest.approx(0.5)
    assert factors == sorted(factors, reverse=True)
    assert 0 < factors[-1] < 1e-3
    assert factors[25] == pytest.approx(math.cos(math.pi / 8) ** 2)
