"""Wide residual networks (Zagoruyko and Komodakis 2016): batch normalization and ReLU before each convolution."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn


class PreActivationBlock(nn.Module):
    """BN, ReLU, 3x3 convolution, twice, beside a shortcut: a 1x1 convolution where the shape changes.

    Args:
        channels_in, channels_out: channels of the input and the output.
        stride: of the first convolution; 2 halves height and width.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N,channels_in,H,W] to [N,channels_out,H/stride,W/stride]."""
        active = torch.relu(self.bn1(x))
        out: Tensor = self.conv2(torch.relu(self.bn2(self.conv1(active))))
        # Where the shape changes, the shortcut starts behind the activation, as in the authors' network.
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Sequential):
    """A stem, three stages of blocks, and one linear layer.

    Args:
        depth: convolutions along the path; 6 n + 4.
        widen: multiplies the stages' 16, 32 and 64 channels.
        input_channels, classes: C of the images and K of the logits.
    """

    def __init__(self, depth: int, widen: int, input_channels: int, classes: int) -> None:
        layers: list[nn.Module] = [nn.Conv2d(input_channels, 16, 3, 1, 1, bias=False)]
        channels = 16
        for stage in range(3):
            wide = 16 * widen * 2**stage
            for block in range((depth - 4) // 6):
                layers.append(PreActivationBlock(channels, wide, 2 if stage and block == 0 else 1))
                channels = wide
        layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(*layers, nn.Linear(channels, classes))


def _wrn(input_channels: int = 3, classes: int = 10, *, depth: int, widen: int) -> nn.Module:
    return WideResNet(depth, widen, input_channels, classes)


WIDE_RESNETS: dict[str, Callable[..., nn.Module]] = {
    f"cifar_wrn{depth}_{widen}": functools.partial(_wrn, depth=depth, widen=widen)
    for depth, widen in ((16, 1), (40, 2))
}
