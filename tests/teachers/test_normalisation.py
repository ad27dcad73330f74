import pytest
import torch

from raydream.teachers.normalisation import Normalisation

MEAN, STD = (0.49, 0.48, 0.1), (0.25, 2.0, 0.01)


def test_normalisation_is_per_channel():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0.0 - 0.49) / 0.25, (0.2 - 0.48) / 2.0, (1.0 - 0.1) / 0.01]
    normalised = Normalisation(MEAN, STD)(images)
    assert normalised.dtype == torch.float32
    assert normalised.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_every_byte_survives_the_way_there_and_back_in_every_channel():
    normalisation = Normalisation(MEAN, STD)
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(normalisation.quantise(normalisation(images)), images)


def test_quantising_takes_the_nearest_byte():
    normalisation = Normalisation((0.5,), (0.5,))
    pixels = torch.tensor([100.4, 100.6, 0.4, 254.6]).view(4, 1, 1, 1)
    quantised = normalisation.quantise((pixels / 255 - 0.5) / 0.5)
    assert quantised.dtype == torch.uint8 and quantised.flatten().tolist() == [100, 101, 0, 255]


def test_quantising_cuts_off_what_no_byte_can_hold():
    quantised = Normalisation((0.5,), (0.5,)).quantise(torch.tensor([-1e6, -1.01, 1.01, 1e6]).view(4, 1, 1, 1))
    assert quantised.flatten().tolist() == [0, 0, 255, 255]


def test_the_valid_range_is_what_black_and_white_become():
    normalisation = Normalisation(MEAN, STD)
    low, high = normalisation.valid_range()
    black, white = (torch.full((1, 3, 1, 1), value, dtype=torch.uint8) for value in (0, 255))
    assert low.shape == high.shape == (1, 3, 1, 1)
    torch.testing.assert_close(normalisation(black), low)
    torch.testing.assert_close(normalisation(white), high)


def test_quantising_takes_no_part_in_gradients():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    assert not Normalisation((0.5,), (0.5,)).quantise(x).requires_grad
