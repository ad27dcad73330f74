import itertools
import math

import pytest
import torch

from raydream.losses.image_prior import image_norm, mean_image_norm, total_variation, total_variation_l1

NEIGHBOURS = {"right": (0, 1), "down": (1, 0), "diagonal": (1, 1), "other diagonal": (1, -1)}


def slow_differences(images: torch.Tensor, down: int, right: int) -> list[float]:
    """Of each pixel of the batch that has a neighbour in one direction, how much larger that neighbour is."""
    count, channels, height, width = images.shape
    return [
        images[n, c, i + down, j + right].item() - images[n, c, i, j].item()
        for n, c, i, j in itertools.product(range(count), range(channels), range(height), range(width))
        if i + down < height and 0 <= j + right < width
    ]


def slow_total_variation(images: torch.Tensor) -> float:
    """Eq. 3 as published: per direction the root of all squared differences of the whole batch, then the sum."""
    directions = [slow_differences(images, *neighbour) for neighbour in NEIGHBOURS.values()]
    return math.fsum(math.sqrt(math.fsum(value**2 for value in differences)) for differences in directions)


def slow_total_variation_l1(images: torch.Tensor) -> float:
    """Its l1 form: per direction the mean of all absolute differences of the whole batch, then the sum."""
    directions = [slow_differences(images, *neighbour) for neighbour in NEIGHBOURS.values()]
    return math.fsum(math.fsum(map(abs, differences)) / len(differences) for differences in directions)


def some_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (2, 3, 4, 5), (3, 1, 5, 2)])
@pytest.mark.parametrize(
    ("term", "slow"), [(total_variation, slow_total_variation), (total_variation_l1, slow_total_variation_l1)]
)
def test_total_variation_equals_a_slow_reference(term, slow, shape):
    images = some_images(*shape)
    assert term(images).item() == pytest.approx(slow(images), rel=1e-12)


@pytest.mark.parametrize("term", [total_variation, total_variation_l1])
def test_total_variation_of_an_even_image_is_zero_with_a_finite_gradient(term):
    images = torch.full((2, 1, 4, 4), 0.7, dtype=torch.float64, requires_grad=True)
    loss = term(images)
    loss.backward()
    assert loss.item() == 0.0
    assert images.grad.abs().max().item() == 0.0


def test_total_variation_of_upright_stripes_sees_no_difference_downwards():
    # 3 x 4 pixels in columns 0 1 0 1: 9 differences to the right, none down, 6 on each diagonal.
    images = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 1, 3, 4)
    assert total_variation(images).item() == pytest.approx(3 + 2 * math.sqrt(6))
    assert total_variation_l1(images).item() == 3.0  # each mean is 1, but the one downwards


def test_total_variation_does_not_depend_on_brightness_mirroring_or_transposition():
    images = some_images(2, 3, 5, 5)
    for term in (total_variation, total_variation_l1):
        expected = term(images)
        for other in (images + 3.0, -images, images.flip(3), images.flip(2), images.transpose(2, 3)):
            torch.testing.assert_close(term(other), expected)


@pytest.mark.parametrize("term", [total_variation, image_norm])
def test_the_prior_grows_with_the_root_of_the_image_count_and_in_proportion_to_contrast(term):
    images = some_images(2, 3, 5, 4)
    torch.testing.assert_close(term(images.repeat(9, 1, 1, 1)), 3.0 * term(images))
    torch.testing.assert_close(term(5.0 * images), 5.0 * term(images))


@pytest.mark.parametrize("term", [total_variation_l1, mean_image_norm])
def test_the_other_forms_do_not_depend_on_the_image_count_and_grow_in_proportion_to_contrast(term):
    images = some_images(2, 3, 5, 4)
    torch.testing.assert_close(term(images.repeat(9, 1, 1, 1)), term(images))
    torch.testing.assert_close(term(5.0 * images), 5.0 * term(images))
    torch.testing.assert_close(term(images), (term(images[:1]) + term(images[1:])) / 2)


def test_image_norm_is_the_root_of_all_squares_of_the_batch():
    images = some_images(2, 3, 4, 5)
    expected = math.sqrt(math.fsum(value**2 for value in images.flatten().tolist()))
    assert image_norm(images).item() == pytest.approx(expected, rel=1e-12)
    assert image_norm(torch.zeros(2, 1, 3, 3)).item() == 0.0


def test_mean_image_norm_is_the_mean_of_each_images_root_of_squares():
    images = some_images(4, 3, 4, 5) * torch.tensor([1.0, 10.0, 0.1, 3.0]).view(4, 1, 1, 1)
    norms = [math.sqrt(math.fsum(value**2 for value in image.flatten().tolist())) for image in images]
    assert mean_image_norm(images).item() == pytest.approx(math.fsum(norms) / 4, rel=1e-12)
    assert mean_image_norm(images[:1]).item() == pytest.approx(image_norm(images[:1]).item(), rel=1e-12)
    assert mean_image_norm(images).item() < image_norm(images).item()


def test_norms_of_black_images_have_a_zero_gradient():
    for term in (image_norm, mean_image_norm):
        images = torch.zeros(2, 1, 3, 3, requires_grad=True)
        term(images).backward()
        assert images.grad.abs().max().item() == 0.0


@pytest.mark.parametrize("term", [total_variation, total_variation_l1, image_norm, mean_image_norm])
def test_gradients_are_right(term):
    assert torch.autograd.gradcheck(term, (some_images(2, 2, 3, 4).requires_grad_(),))
