from dataclasses import replace

import pytest
import torch
from torch import nn

from raydream.config import GeneratorNetworkConfig, TeacherConfig
from raydream.synthesis.generator_network import GeneratorNetwork, fresh_network
from raydream.teachers.teacher import Teacher, make_teacher
from tests.tiny import tiny_teacher

CONFIG = GeneratorNetworkConfig(latent=5, width=3)


def teacher_of(channels: int, *size: int) -> Teacher:
    mean, std = (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.25)[:channels]
    described = TeacherConfig(input_shape=(channels, *size), mean=mean, std=std)
    return make_teacher(nn.Flatten(), described)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 6), (3, 32, 32), (3, 33, 50), (3, 2, 2), (1, 224, 224)])
def test_images_have_the_teachers_shape_and_the_range_of_real_ones(shape):
    teacher = teacher_of(*shape)
    with torch.no_grad():
        images = fresh_network(CONFIG, teacher, 0)(20.0 * torch.randn(2, 5))
    assert images.shape == (2, *shape)
    low, high = teacher.normalization.canvas().valid_range()
    assert bool((images >= low - 1e-6).all()) and bool((images <= high + 1e-6).all())


def test_the_published_sizes_at_32_pixels():
    network = GeneratorNetwork(GeneratorNetworkConfig(), teacher_of(3, 32, 32))
    assert network.linear.weight.shape == (128 * 8 * 8, 256)
    assert [tuple(layer.weight.shape[:2]) for layer in network.convolutions] == [(128, 128), (64, 128)]
    assert network.last.weight.shape == (3, 64, 3, 3)


def test_weights_follow_from_the_seed_and_disturb_nobody():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = (fresh_network(CONFIG, tiny_teacher(), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not torch.equal(one["linear.weight"], other["linear.weight"])


def test_all_that_is_kept_is_learned():
    network = fresh_network(replace(CONFIG, latent=4), tiny_teacher(), 0)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
