"""Mean and scale of a training input, from the first layer's weights and the BN statistics that it left."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.diagnosis.first_layer import FirstLayer, estimate_input, first_layer, unit_variances

SHAPE = (3, 20, 20)
MEAN, STD = (0.5, -1.0, 2.0), 0.8


def smooth_images(count: int, mean: tuple[float, ...] = MEAN, std: float = STD, size: int = 20) -> Tensor:
    """Images [N,C,H,W] of blurred noise, whose channels are alike, of a mean for each channel and one deviation."""
    shared, own = torch.randn(count, 1, size, size), torch.randn(count, len(mean), size, size)
    blur = torch.exp(-torch.arange(-4.0, 5.0).square() / 8)
    blur = torch.outer(blur, blur)[None, None]
    noise = functional.conv2d((shared + 0.2 * own).flatten(0, 1)[:, None], blur, padding=4)
    noise = noise.view(count, len(mean), size, size)
    noise = noise / noise.std()
    return torch.tensor(mean).view(1, -1, 1, 1) + std * noise


class Net(nn.Module):
    """A stem, and what follows it."""

    def __init__(self, *stem: nn.Module, channels: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(*stem)
        self.head = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).mean((2, 3)))


def trained_on(network: nn.Module, images: Tensor) -> nn.Module:
    """A network whose BN layers have exactly the statistics of these images."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    network.train()
    with torch.no_grad():
        network(images)
    return network.eval()


STEMS = {
    "padded": lambda: (nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)),
    "with bias": lambda: (nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
    "strided": lambda: (nn.Conv2d(3, 24, 7, stride=2, padding=3), nn.BatchNorm2d(24), nn.ReLU()),
    "reflected": lambda: (nn.Conv2d(3, 24, 5, padding=2, padding_mode="reflect"), nn.BatchNorm2d(24)),
    "dilated": lambda: (nn.Conv2d(3, 24, 3, dilation=2), nn.BatchNorm2d(24)),
    "without affine": lambda: (nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24, affine=False)),
}


@pytest.mark.parametrize("stem", STEMS)
def test_mean_and_scale_are_those_of_the_images_that_the_statistics_are_of(stem):
    network = trained_on(Net(*STEMS[stem]()), smooth_images(400))
    layer = first_layer(network, SHAPE)
    assert layer is not None and layer.name == "stem.1" and layer.convolution is not None
    estimate = estimate_input(layer)
    assert estimate is not None
    torch.testing.assert_close(torch.tensor(estimate.mean), torch.tensor(MEAN), rtol=0, atol=0.1)
    assert estimate.std == pytest.approx(STD, rel=0.2)
    assert max(estimate.mean_error) < 0.1


def test_the_scale_follows_that_of_the_input():
    for factor in (1.0, 255.0):
        images = smooth_images(300, tuple(factor * each for each in MEAN), factor * STD)
        torch.manual_seed(1)
        estimate = estimate_input(first_layer(trained_on(Net(*STEMS["padded"]()), images), SHAPE))
        assert estimate.std == pytest.approx(factor * STD, rel=0.2)


def test_a_layer_that_sees_the_image_itself_needs_no_fit():
    network = trained_on(Net(nn.BatchNorm2d(3), nn.Conv2d(3, 24, 3)), smooth_images(200))
    layer = first_layer(network, SHAPE)
    assert layer.convolution is None
    estimate = estimate_input(layer)
    torch.testing.assert_close(torch.tensor(estimate.mean), torch.tensor(MEAN), rtol=0, atol=0.05)
    assert estimate.std == pytest.approx(STD, rel=0.02)


def test_the_network_stays_as_it_is():
    network = trained_on(Net(*STEMS["padded"]()), smooth_images(8))
    before = copy.deepcopy(network.state_dict())
    first_layer(network, SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


NONE = {
    "an activation in between": (nn.Conv2d(3, 24, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(24)),
    "a pool before it": (nn.AvgPool2d(2), nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24)),
    "no statistics": (nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24, track_running_stats=False)),
    "no BN": (nn.Conv2d(3, 24, 3), nn.GroupNorm(4, 24)),
}


@pytest.mark.parametrize("what", NONE)
def test_other_networks_have_no_such_layer(what):
    assert first_layer(Net(*NONE[what]).eval(), SHAPE) is None


def known(**changes: Tensor) -> FirstLayer:
    torch.manual_seed(0)
    layer = first_layer(trained_on(Net(*STEMS["padded"]()), smooth_images(50)), SHAPE)
    return FirstLayer(
        layer.name, layer.convolution, changes.get("mean", layer.mean), changes.get("variance", layer.variance), SHAPE
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": torch.full((24,), torch.nan, dtype=torch.float64)},
        {"variance": torch.full((24,), torch.inf, dtype=torch.float64)},
        {"variance": torch.zeros(24, dtype=torch.float64)},
        {"variance": torch.tensor([1.0, 1.0, *[0.0] * 22], dtype=torch.float64)},
    ],
    ids=["NaN", "infinity", "all dead", "fewer living filters than channels"],
)
def test_statistics_that_decide_nothing(changes):
    assert estimate_input(known(**changes)) is None


def test_dead_filters_do_not_count():
    layer = known()
    mean, variance = layer.mean.clone(), layer.variance.clone()
    mean[:4], variance[:4] = 50.0, 1e-12
    whole, some = estimate_input(layer), estimate_input(known(mean=mean, variance=variance))
    torch.testing.assert_close(torch.tensor(some.mean), torch.tensor(whole.mean), rtol=0, atol=0.1)


def test_unit_variances_are_those_of_a_slow_double_sum():
    layer = known()
    weight, found = layer.convolution.weight, unit_variances(layer, 2.0, 0.9)
    expected = 0.0
    for c in range(3):
        for d in range(3):
            for u in range(9):
                for v in range(9):
                    distance = ((u // 3 - v // 3) ** 2 + (u % 3 - v % 3) ** 2) ** 0.5
                    related = (1.0 if c == d else 0.9) * 2.718281828459045 ** (-distance / 2.0)
                    expected += float(weight[5, c].flatten()[u] * weight[5, d].flatten()[v]) * related
    assert float(found[5]) == pytest.approx(expected, rel=1e-9)
