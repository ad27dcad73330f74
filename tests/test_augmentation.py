import math

import pytest
import torch
from torch import Tensor

from raydream.augmentation import cutout, mixup, random_affine, random_flip, random_shift, random_tone
from raydream.config import ViewConfig
from raydream.students.view import StudentView
from raydream.teachers.normalization import Normalization

NORMALISATION = Normalization((0.4, 0.5), (0.25, 0.3))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distinct(count: int = 6, channels: int = 2, height: int = 4, width: int = 5) -> Tensor:
    values = torch.randperm(count * channels * height * width, generator=seeded(9)).float() + 1
    return values.view(count, channels, height, width)


def distinct_bytes() -> Tensor:
    return distinct().to(torch.uint8)


def slow_shift(image: Tensor, down: int, right: int, fill: list[float]) -> Tensor:
    """One image [C,H,W] moved pixel by pixel."""
    channels, height, width = image.shape
    moved = torch.empty_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                inside = 0 <= i - down < height and 0 <= j - right < width
                moved[c, i, j] = image[c, i - down, j - right] if inside else fill[c]
    return moved


@pytest.mark.parametrize("most", [1, 2])
def test_each_image_is_shifted_by_some_amount_up_to_the_most(most):
    x, fill = distinct(), torch.tensor([-7.0, -8.0]).view(1, 2, 1, 1)
    sides = range(-most, most + 1)
    allowed = [[slow_shift(image, d, r, [-7.0, -8.0]) for d in sides for r in sides] for image in x]
    seen: set[int] = set()
    random = seeded()
    for _ in range(25):
        for image, candidates in zip(random_shift(x, most, fill, random), allowed, strict=True):
            (shift,) = [index for index, moved in enumerate(candidates) if torch.equal(moved, image)]
            seen.add(shift)
    assert len(seen) == len(sides) ** 2


def test_images_of_a_batch_are_shifted_apart_and_their_channels_together():
    same = distinct(1).expand(40, -1, -1, -1)
    shifted = random_shift(same, 1, 0.0, seeded())
    assert len({image.numpy().tobytes() for image in shifted}) == 9
    twins = torch.ones(20, 3, 4, 4)
    shifted = random_shift(twins, 2, 0.0, seeded())
    assert torch.equal(shifted[:, 0], shifted[:, 1]) and torch.equal(shifted[:, 0], shifted[:, 2])


def test_what_moves_in_at_the_edge_is_the_fill_value():
    shifted = random_shift(torch.ones(50, 1, 6, 6), 2, -0.5, seeded())
    assert set(shifted.unique().tolist()) == {-0.5, 1.0}
    assert (shifted[:, :, 2:4, 2:4] == 1.0).all()
    assert (shifted == -0.5).any(dim=0)[0, 0].all() and (shifted == -0.5).any(dim=0)[0, :, 0].all()


def test_a_shift_of_nothing_changes_nothing():
    x = distinct()
    assert torch.equal(random_shift(x, 0, 5.0, seeded()), x)


def test_each_image_is_mirrored_or_not():
    x = distinct(200, 1, 2, 3)
    flipped = random_flip(x, seeded())
    mirrored = [torch.equal(after, before.flip(2)) for before, after in zip(x, flipped, strict=True)]
    kept = [torch.equal(after, before) for before, after in zip(x, flipped, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 50.0])
def test_mixup_blends_each_image_with_one_other_by_one_weight(alpha):
    one_hot = torch.eye(6).view(6, 1, 1, 6)
    for seed in range(10):
        weights = mixup(one_hot, alpha, seeded(seed)).view(6, 6)
        assert bool((weights >= 0).all()) and bool((weights <= 1).all())
        torch.testing.assert_close(weights.sum(1), torch.ones(6))
        torch.testing.assert_close(weights.sum(0), torch.ones(6))  # everybody is somebody's other
        own = weights.diagonal()
        blended = own[own < 1]
        assert len(set(blended.tolist())) <= 1
        assert bool(((weights > 0).sum(1) <= 2).all())


def test_mixup_stays_within_the_batch_and_keeps_its_mean():
    x = torch.randn(8, 2, 3, 3, generator=seeded())
    mixed = mixup(x, 1.0, seeded(3))
    assert not torch.equal(mixed, x)
    assert bool((mixed <= x.amax(0) + 1e-6).all()) and bool((mixed >= x.amin(0) - 1e-6).all())
    torch.testing.assert_close(mixed.mean(0), x.mean(0))


def test_the_blending_weight_follows_beta_of_alpha():
    one_hot = torch.eye(6).view(6, 1, 1, 6)

    def weights(alpha: float) -> Tensor:
        found = [mixup(one_hot, alpha, seeded(seed)).view(6, 6).diagonal() for seed in range(300)]
        return torch.tensor([own[own < 1][0].item() if bool((own < 1).any()) else 1.0 for own in found])

    narrow, wide = weights(50.0), weights(1.0)
    assert narrow.mean().item() == pytest.approx(0.5, abs=0.02)
    assert narrow.var().item() == pytest.approx(1 / (4 * 101), rel=0.3)  # of Beta(a, a): 1 / (4 (2 a + 1))
    assert wide.var().item() == pytest.approx(1 / 12, rel=0.3)


def turned(image: Tensor, zoom: float, degrees: float) -> Tensor:
    """One image [C,H,W], each of its pixels looked up in the original by bilinear weights and mirrored edges."""
    height, width = image.shape[1:]
    radians, result = math.radians(degrees), torch.empty_like(image)

    def mirrored(position: float, size: int) -> float:  # reflection about the outer edges of the first and last pixel
        position = abs(position + 0.5) % (2 * size)
        return min(max(min(position, 2 * size - position) - 0.5, 0.0), size - 1.0)

    for i in range(height):
        for j in range(width):
            down, right = i - (height - 1) / 2, j - (width - 1) / 2
            y = zoom * (math.sin(radians) * right + math.cos(radians) * down) + (height - 1) / 2
            x = zoom * (math.cos(radians) * right - math.sin(radians) * down) + (width - 1) / 2
            y, x = mirrored(y, height), mirrored(x, width)
            top, left = int(y), int(x)
            low, far = min(top + 1, height - 1), min(left + 1, width - 1)
            b, a = y - top, x - left
            upper = (1 - a) * image[:, top, left] + a * image[:, top, far]
            result[:, i, j] = (1 - b) * upper + b * ((1 - a) * image[:, low, left] + a * image[:, low, far])
    return result


@pytest.mark.parametrize(("zoom", "rotation"), [(0.3, 0.0), (0.0, 40.0), (0.2, 30.0)])
def test_each_image_is_scaled_and_turned_about_its_middle_without_being_sheared(zoom, rotation):
    x = torch.randn(12, 2, 5, 8, generator=seeded(2))
    drawn = seeded(7)
    scales = 1 + zoom * (2 * torch.rand(12, generator=drawn) - 1)
    angles = rotation * (2 * torch.rand(12, generator=drawn) - 1)
    expected = [turned(image, float(s), float(a)) for image, s, a in zip(x, scales, angles, strict=True)]
    torch.testing.assert_close(random_affine(x, zoom, rotation, seeded(7)), torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_brightness_and_contrast_are_drawn_for_each_image_and_shared_by_its_channels():
    x = torch.randn(500, 2, 3, 3, generator=seeded())
    toned = random_tone(x, 0.5, 0.25, seeded(1))
    factor = (toned[:, :, 0, 0] - toned[:, :, 1, 1]) / (x[:, :, 0, 0] - x[:, :, 1, 1])
    offset = toned[:, :, 2, 2] - factor * x[:, :, 2, 2]
    torch.testing.assert_close(factor[:, 0], factor[:, 1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(offset[:, 0], offset[:, 1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(toned, factor[:, :1, None, None] * x + offset[:, :1, None, None], rtol=1e-2, atol=1e-2)
    for values, middle, most in ((factor, 1.0, 0.25), (offset, 0.0, 0.5)):
        away = (values[:, 0] - middle).abs()
        assert 0.95 * most < away.max() <= most + 1e-3
        assert away.mean().item() == pytest.approx(most / 2, rel=0.15)


@pytest.mark.parametrize("side", [1, 3, 4])
def test_a_square_is_cut_out_of_each_image_and_the_rest_is_left(side):
    x = distinct(300, 2, 6, 7)
    missing = cutout(x, side, seeded()) == 0
    assert torch.equal(missing[:, 0], missing[:, 1])
    assert torch.equal(cutout(x, side, seeded())[~missing], x[~missing])
    heights, widths = missing[:, 0].any(2).sum(1), missing[:, 0].any(1).sum(1)
    assert torch.equal(missing[:, 0].sum((1, 2)), heights * widths)
    assert set(heights.tolist()) == set(widths.tolist()) == set(range((side + 1) // 2, side + 1))
    assert bool(missing[:, 0].any(0).all())


@pytest.mark.parametrize(
    "changes",
    [
        {"shift": 1},
        {"shift": 0, "flip": True},
        {"shift": 0, "zoom": 0.3},
        {"shift": 0, "rotation": 20},
        {"shift": 0, "brightness": 0.3},
        {"shift": 0, "contrast": 0.3},
        {"shift": 0, "cutout": 2},
        {"shift": 0, "mixup": 1.0},
    ],
)
def test_the_view_depends_on_the_generator_alone(changes):
    images, view = distinct_bytes(), StudentView(ViewConfig(**changes), NORMALISATION)
    torch.manual_seed(1)
    first = view(images, seeded(4))
    torch.manual_seed(2)
    assert torch.equal(view(images, seeded(4)), first)
    others = [view(images, seeded(seed)) for seed in range(5, 10)]
    assert not all(torch.equal(other, first) for other in others)


def test_without_augmentation_the_view_is_the_normalized_batch():
    images = distinct_bytes()
    view = StudentView(ViewConfig(shift=0), NORMALISATION)(images, seeded())
    assert torch.allclose(view, NORMALISATION(images), rtol=1e-6, atol=1e-6)


def test_a_view_leaves_its_images_alone():
    images = distinct_bytes()
    kept = images.clone()
    config = ViewConfig(shift=2, flip=True, zoom=0.2, contrast=0.2, cutout=2, mixup=1.0)
    StudentView(config, NORMALISATION)(images, seeded())
    assert torch.equal(images, kept)


@pytest.mark.parametrize("std", [1 / 256, 1 / 4, 1.0])
def test_augmentations_mean_the_same_whatever_the_std_of_the_teacher_is(std):
    config = ViewConfig(shift=1, zoom=0.1, brightness=0.5, contrast=0.3, cutout=2, mixup=0.5)
    view, other = (
        StudentView(config, Normalization((0.4, 0.5), (each, each)))(distinct_bytes(), seeded()) * each
        for each in (std, 0.5)
    )
    assert torch.allclose(view, other, rtol=1e-6, atol=1e-7)
