import pytest
import torch

from raydream.teachers.normalization import Normalization

MEAN, STD = (0.49, 0.48, 0.1), (0.25, 2.0, 0.01)


def test_normalization_is_per_channel():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0.0 - 0.49) / 0.25, (0.2 - 0.48) / 2.0, (1.0 - 0.1) / 0.01]
    normalized = Normalization(MEAN, STD)(images)
    assert normalized.dtype == torch.float32
    assert normalized.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_every_byte_survives_the_way_there_and_back_in_every_channel():
    normalization = Normalization(MEAN, STD)
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(normalization.quantize(normalization(images)), images)


def test_quantizing_takes_the_nearest_byte():
    normalization = Normalization((0.5,), (0.5,))
    pixels = torch.tensor([100.4, 100.6, 0.4, 254.6]).view(4, 1, 1, 1)
    quantized = normalization.quantize((pixels / 255 - 0.5) / 0.5)
    assert quantized.dtype == torch.uint8 and quantized.flatten().tolist() == [100, 101, 0, 255]


def test_quantizing_cuts_off_what_no_byte_can_hold():
    quantized = Normalization((0.5,), (0.5,)).quantize(torch.tensor([-1e6, -1.01, 1.01, 1e6]).view(4, 1, 1, 1))
    assert quantized.flatten().tolist() == [0, 0, 255, 255]


def test_the_valid_range_is_what_black_and_white_become():
    normalization = Normalization(MEAN, STD)
    low, high = normalization.valid_range()
    black, white = (torch.full((1, 3, 1, 1), value, dtype=torch.uint8) for value in (0, 255))
    assert low.shape == high.shape == (1, 3, 1, 1)
    torch.testing.assert_close(normalization(black), low)
    torch.testing.assert_close(normalization(white), high)


def test_quantizing_takes_no_part_in_gradients():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    assert not Normalization((0.5,), (0.5,)).quantize(x).requires_grad
