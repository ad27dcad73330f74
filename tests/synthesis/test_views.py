import pytest
import torch

from raydream.synthesis.view import View, draw_crops, draw_view

EVERY_VIEW = [(down, right, mirrored) for down in (-2, 0, 1) for right in (-1, 0, 2) for mirrored in (0, 1)]


def distinct(count: int = 3, height: int = 6, width: int = 7) -> torch.Tensor:
    return torch.arange(count * height * width, dtype=torch.float32).view(count, 1, height, width)


def slow_roll(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    rolled = torch.empty_like(x)
    height, width = x.shape[2:]
    for i in range(height):
        for j in range(width):
            rolled[..., (i + down) % height, (j + right) % width] = x[..., i, j]
    return rolled


def slow_mirror(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[..., -1 - j] for j in range(x.shape[3])], dim=3)


def numbered(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_jitter_and_flip_the_view_is_the_batch():
    x = distinct()
    view = draw_view(0, False, numbered())
    assert view == View(0, 0, 0)
    assert torch.equal(view(x), x) and torch.equal(view.back(x), x)


@pytest.mark.parametrize(("down", "right", "mirrored"), EVERY_VIEW)
def test_a_view_is_rolled_and_then_mirrored(down, right, mirrored):
    x = distinct()
    rolled = slow_roll(x, down, right)
    assert torch.equal(View(down, right, mirrored)(x), slow_mirror(rolled) if mirrored else rolled)


def test_jitter_rolls_the_whole_batch_by_every_shift_up_to_its_size():
    x, random = distinct(), numbered()
    allowed = [slow_roll(x, down, right) for down in range(-2, 3) for right in range(-2, 3)]
    seen = set()
    for _ in range(300):
        view = draw_view(2, False, random)(x)
        (shift,) = [index for index, rolled in enumerate(allowed) if torch.equal(rolled, view)]
        seen.add(shift)
    assert len(seen) == 25


def test_flip_mirrors_the_whole_batch_about_half_of_the_time():
    x, random = distinct(), numbered()
    mirrored = 0
    for _ in range(400):
        view = draw_view(0, True, random)(x)
        assert torch.equal(view, x) or torch.equal(view, slow_mirror(x))
        mirrored += torch.equal(view, slow_mirror(x))
    assert 150 < mirrored < 250


@pytest.mark.parametrize(("down", "right", "mirrored"), EVERY_VIEW)
def test_the_way_back_is_the_adjoint(down, right, mirrored):
    # <view(x), g> = <x, back(g)>; whole numbers, so to the last bit. And a view only moves pixels: back undoes it.
    view = View(down, right, mirrored)
    x, g = (torch.randint(-99, 100, (3, 2, 6, 7), generator=numbered(seed)).double() for seed in (1, 2))
    assert (view(x) * g).sum().item() == (x * view.back(g)).sum().item() != 0.0
    assert torch.equal(view.back(view(x)), x) and torch.equal(view(view.back(x)), x)


@pytest.mark.parametrize(("down", "right", "mirrored"), EVERY_VIEW)
def test_the_way_back_is_what_autograd_would_do(down, right, mirrored):
    view, x = View(down, right, mirrored), distinct().requires_grad_()
    weights = torch.randn(x.shape, generator=numbered())
    (gradient,) = torch.autograd.grad((view(x) * weights).sum(), x)
    assert torch.equal(view.back(weights), gradient)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("down", "right", "mirrored"), [(0, 0, 0), (-9, 8, 1)])
def test_what_a_view_returns_lies_channels_last_in_whichever_order_the_images_lie(
    down, right, mirrored, order, channels
):
    # Fused Adam reads pixels and gradients in the order of memory.
    x, view = torch.randn(2, channels, 6, 7).contiguous(memory_format=order), View(down, right, mirrored)
    rolled = torch.roll(x, (down, right), dims=(2, 3))
    seen = view(x)
    assert torch.equal(seen, rolled.flip(3) if mirrored else rolled) and torch.equal(view.back(seen), x)
    for moved in (seen, view.back(seen)):
        assert moved.is_contiguous(memory_format=torch.channels_last)


def test_views_depend_on_the_generator_alone():
    def drawn(seed: int) -> list[View]:
        random = numbered(seed)
        return [draw_view(2, True, random) for _ in range(20)]

    torch.manual_seed(1)
    first = drawn(5)
    torch.manual_seed(2)
    assert drawn(5) == first and drawn(6) != first


def slow_crop(image: torch.Tensor, down: int, right: int, mirrored: bool, background: torch.Tensor) -> torch.Tensor:
    """One image [C,H,W], padded with the background and cut out."""
    channels, height, width = image.shape
    cut = background[0].expand(channels, height, width).clone()
    for i in range(height):
        for j in range(width):
            row, column = i + down, (width - 1 - j if mirrored else j) + right
            if 0 <= row < height and 0 <= column < width:
                cut[:, i, j] = image[:, row, column]
    return cut


def test_each_image_has_a_crop_of_its_own_whose_edge_is_the_background():
    background = torch.tensor([-3.0, -5.0]).view(1, 2, 1, 1)
    x = torch.randn(40, 2, 5, 4, generator=numbered())
    seen, found = draw_crops((40, 5, 4), 2, True, background, numbered(1))(x), set()
    views = [(d, r, m) for d in range(-2, 3) for r in range(-2, 3) for m in (False, True)]
    for image, crop in zip(x, seen, strict=True):
        alike = [view for view in views if torch.equal(crop, slow_crop(image, *view, background))]
        assert len(alike) == 1
        found.add(alike[0])
    assert {abs(down) for down, _, _ in found} == {0, 1, 2} and {mirrored for *_, mirrored in found} == {False, True}


def test_a_crops_gradient_goes_back_to_the_pixels_that_were_seen():
    x = torch.randn(6, 1, 4, 4, dtype=torch.float64, generator=numbered()).requires_grad_()
    view = draw_crops((6, 4, 4), 2, True, torch.zeros(1, 1, 1, 1, dtype=torch.float64), numbered(1))
    assert torch.autograd.gradcheck(view, x)


def test_crops_without_padding_and_flip_are_the_images():
    x = distinct()
    assert torch.equal(draw_crops((3, 6, 7), 0, False, torch.zeros(1, 1, 1, 1), numbered())(x), x)
