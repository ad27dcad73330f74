"""VGG with batch normalization (Simonyan and Zisserman 2015), with one linear layer as is usual for CIFAR."""

import functools
from collections.abc import Callable

from torch import Tensor, nn

# Channels of each 3x3 convolution; 0 is a max-pooling that halves height and width.
LAYOUTS: dict[int, tuple[int, ...]] = {
    11: (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    16: (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
}


class VGG(nn.Module):
    """Convolutions with batch normalization, five poolings, and one linear layer.

    Args:
        layout: a value of `LAYOUTS`.
        input_channels, classes: C of the images (H and W >= 32) and K of the logits.
    """

    def __init__(self, layout: tuple[int, ...], input_channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = input_channels
        for wide in layout:
            if wide == 0:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, wide, 3, 1, 1), nn.BatchNorm2d(wide), nn.ReLU()]
                channels = wide
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N,C,H,W] to logits [N,K]."""
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def _vgg(input_channels: int = 3, classes: int = 10, *, depth: int) -> nn.Module:
    return VGG(LAYOUTS[depth], input_channels, classes)


VGGS: dict[str, Callable[..., nn.Module]] = {
    f"cifar_vgg{depth}_bn": functools.partial(_vgg, depth=depth) for depth in LAYOUTS
}
