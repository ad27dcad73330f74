import itertools
import math

import pytest
import torch

from raydream.losses.image_prior import image_norm, total_variation

NEIGHBOURS = {"right": (0, 1), "down": (1, 0), "diagonal": (1, 1), "other diagonal": (1, -1)}


def slow_total_variation(images: torch.Tensor) -> float:
    """Eq. 3 as published: per direction the root of all squared differences of the whole batch, then the sum."""
    count, channels, height, width = images.shape
    total = 0.0
    for down, right in NEIGHBOURS.values():
        squares = []
        for n, c, i, j in itertools.product(range(count), range(channels), range(height), range(width)):
            if i + down < height and 0 <= j + right < width:
                squares.append((images[n, c, i + down, j + right].item() - images[n, c, i, j].item()) ** 2)
        total += math.sqrt(math.fsum(squares))
    return total


def some_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (2, 3, 4, 5), (3, 1, 5, 2)])
def test_total_variation_equals_a_slow_reference(shape):
    images = some_images(*shape)
    assert total_variation(images).item() == pytest.approx(slow_total_variation(images), rel=1e-12)


def test_total_variation_of_an_even_image_is_zero_with_a_finite_gradient():
    images = torch.full((2, 1, 4, 4), 0.7, dtype=torch.float64, requires_grad=True)
    loss = total_variation(images)
    loss.backward()
    assert loss.item() == 0.0
    assert images.grad.abs().max().item() == 0.0


def test_total_variation_of_upright_stripes_sees_no_difference_downwards():
    # 3 x 4 pixels in columns 0 1 0 1: 9 differences to the right, none down, 6 on each diagonal.
    images = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 1, 3, 4)
    assert total_variation(images).item() == pytest.approx(3 + 2 * math.sqrt(6))


def test_total_variation_does_not_depend_on_brightness_mirroring_or_transposition():
    images = some_images(2, 3, 5, 5)
    expected = total_variation(images)
    for other in (images + 3.0, -images, images.flip(3), images.flip(2), images.transpose(2, 3)):
        torch.testing.assert_close(total_variation(other), expected)


@pytest.mark.parametrize("term", [total_variation, image_norm])
def test_the_prior_grows_with_the_root_of_the_image_count_and_in_proportion_to_contrast(term):
    images = some_images(2, 3, 5, 4)
    torch.testing.assert_close(term(images.repeat(9, 1, 1, 1)), 3.0 * term(images))
    torch.testing.assert_close(term(5.0 * images), 5.0 * term(images))


def test_image_norm_is_the_root_of_all_squares_of_the_batch():
    images = some_images(2, 3, 4, 5)
    expected = math.sqrt(math.fsum(value**2 for value in images.flatten().tolist()))
    assert image_norm(images).item() == pytest.approx(expected, rel=1e-12)
    assert image_norm(torch.zeros(2, 1, 3, 3)).item() == 0.0


@pytest.mark.parametrize("term", [total_variation, image_norm])
def test_gradients_are_right(term):
    assert torch.autograd.gradcheck(term, (some_images(2, 2, 3, 4).requires_grad_(),))
