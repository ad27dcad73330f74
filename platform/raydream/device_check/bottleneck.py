"""ResNet-50 of He et al. (2016), in the form of torchvision's, which a machine with a GPU may lack."""

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution beside a shortcut; the 3x3 one has the stride.

    Args:
        channels: channels of the input.
        width: channels of the 3x3 convolution; the output has four times that number.
        stride: 2 halves height and width.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N,channels,H,W] to [N,4 width,H/stride,W/stride]."""
        return torch.relu(self.inner(x) + self.shortcut(x))


def bottleneck_network(blocks: str = "3463", width: int = 64, classes: int = 1000) -> nn.Module:
    """Build the network for images [N,3,H,W] with logits [N,classes]; 25.6 million weights by default.

    Args:
        blocks: a digit per stage: its number of blocks. Every stage but the first halves height and width.
        width: width of the first stage; each further one is twice as wide.
    """
    stem = (nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    stages: list[nn.Module] = []
    channels = width
    for stage, count in enumerate(map(int, blocks)):
        wide = width * 2**stage
        for block in range(count):
            stages.append(Bottleneck(channels, wide, 2 if stage and not block else 1))
            channels = 4 * wide
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
