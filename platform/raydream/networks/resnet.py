"""Residual networks for images of about 32x32 pixels (He et al. 2016), their first convolution at full resolution."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class PaddedShortcut(nn.Module):
    """He et al.'s option A: every second pixel of every second row, and channels of zeros on either side.

    Args:
        channels_in, channels_out: of the input and the output; an even number of zeros lies between them.
        stride: between the pixels that are kept.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.channels_in, self.channels_out, self.stride = channels_in, channels_out, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map [N,channels_in,H,W] to [N,channels_out,H/stride,W/stride]."""
        kept, zeros = x[:, :, :: self.stride, :: self.stride], (self.channels_out - self.channels_in) // 2
        return functional.pad(kept, (0, 0, 0, 0, zeros, zeros))


class ConvolutionShortcut(nn.Sequential):
    """He et al.'s option B: a 1x1 convolution with batch normalization."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        channels_in, channels_out: channels of the input and the output.
        stride: of the first convolution; 2 halves height and width.
        padded: whether the shortcut is option A where the shape changes, and not option B.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, padded: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = (
                PaddedShortcut(channels_in, channels_out, stride)
                if padded
                else ConvolutionShortcut(channels_in, channels_out, stride)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N,channels_in,H,W] to [N,channels_out,H/stride,W/stride]."""
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of residual blocks, and one linear layer.

    The parts are named as in the checkpoints that circulate for CIFAR (conv1, bn1, layer1 ..., linear).

    Args:
        blocks: residual blocks of each stage; every stage but the first halves height and width.
        width: channels of the first stage; each further stage has twice the previous number.
        padded: the blocks' shortcut, see `ResidualBlock`.
        input_channels, classes: C of the images and K of the logits.
    """

    def __init__(self, blocks: tuple[int, ...], width: int, padded: bool, input_channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = len(blocks)
        channels = width
        for stage, count in enumerate(blocks):
            wide, stride = width * 2**stage, 1 if stage == 0 else 2
            rest = [ResidualBlock(wide, wide, 1, padded) for _ in range(count - 1)]
            first = ResidualBlock(channels, wide, stride, padded)
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            channels = wide
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N,C,H,W] to logits [N,K]."""
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _thin(input_channels: int = 3, classes: int = 10, *, depth: int) -> nn.Module:
    return ResNet(((depth - 2) // 6,) * 3, 16, True, input_channels, classes)


def _wide(input_channels: int = 3, classes: int = 10, width: int = 64, *, blocks: tuple[int, ...]) -> nn.Module:
    return ResNet(blocks, width, False, input_channels, classes)


RESNETS: dict[str, Callable[..., nn.Module]] = {
    # He et al.'s own CIFAR form: three stages of 16 to 64 channels, option A, 0.27 to 0.85 million weights.
    **{f"cifar_resnet{depth}": functools.partial(_thin, depth=depth) for depth in (20, 32, 44, 56)},
    # The ImageNet form without its pooling stem: four stages of 64 to 512 channels, option B, 11 and 21 million.
    "cifar_resnet18": functools.partial(_wide, blocks=(2, 2, 2, 2)),
    "cifar_resnet34": functools.partial(_wide, blocks=(3, 4, 6, 3)),
}
