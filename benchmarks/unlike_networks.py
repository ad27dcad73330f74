"""Small networks that differ from the project's and from each other, as users' networks do: named unlike_networks:NAME.

Each has batch normalization, and maps [N,3,32,32] to ten logits where its function says nothing else.
"""

from torch import Tensor, nn

from raydream.networks.resnet import ResNet


class Separable(nn.Sequential):
    """A depthwise and a pointwise convolution, each with BN and ReLU6, as in MobileNet."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False),
            nn.BatchNorm2d(channels_in),
            nn.ReLU6(),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU6(),
        )


class Plain(nn.Module):
    """Convolutions, pooling, and a linear layer on the flattened map, which fits one size of images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(3, 24, 5), nn.MaxPool2d(2), *_convolution(24, 48), nn.MaxPool2d(2), *_convolution(48, 64)
        )
        self.hidden = nn.Sequential(nn.Linear(64 * 8 * 8, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [N,10]."""
        logits: Tensor = self.head(self.hidden(self.features(x).flatten(1)))
        return logits


def _convolution(channels_in: int, channels_out: int, kernel: int = 3, bias: bool = False) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]


def plain() -> nn.Module:
    """Return a plain CNN with a flattened head."""
    return Plain()


def resnet8() -> nn.Module:
    """Return a ResNet of three blocks."""
    return ResNet((1, 1, 1), 16, padded=True, input_channels=3, classes=10)


def slim_vgg() -> nn.Module:
    """Return a narrow VGG whose convolutions have biases."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (24, 32, 48, 64):
        layers += [*_convolution(channels, width, bias=True), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def mobile() -> nn.Module:
    """Return a MobileNet of five blocks."""
    return nn.Sequential(
        *_convolution(3, 24),
        Separable(24, 32),
        Separable(32, 48, stride=2),
        Separable(48, 64),
        Separable(64, 96, stride=2),
        Separable(96, 96),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def rectified() -> nn.Module:
    """Return a CNN with PReLU, and BN without weights of its own, for two classes."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (16, 32, 64):
        convolution = nn.Conv2d(channels, width, 3, 2, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width, affine=False), nn.PReLU(width)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


def long_input() -> nn.Module:
    """Return a CNN of one long channel, as of a spectrogram, [N,1,16,96], to ten logits."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (16, 32, 48):
        layers += [*_convolution(channels, width), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 6)), nn.Flatten(), nn.Linear(6 * channels, 10))
