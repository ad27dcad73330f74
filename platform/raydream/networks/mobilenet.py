"""MobileNetV2 (Sandler et al. 2018) for images of about 32x32 pixels."""

from torch import nn

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""factor of widening, channels, blocks and stride of each stage: table 2 of the paper, but for the second one's stride
of 2, which is 1"""


def mobilenet_v2(input_channels: int = 3, classes: int = 10, *, width: float = 1.0) -> nn.Module:
    """Build torchvision's network with two strides of 2 less, so that 32x32 pixels end as 4x4.

    Args:
        input_channels, classes: C of the images and K of the logits.
        width: factor on the channels of all layers but the last convolution, which has at least 1,280.
    """
    from torchvision.models.mobilenetv2 import MobileNetV2  # only here: importing torchvision takes seconds

    stages = [list(stage) for stage in STAGES]
    network: nn.Module = MobileNetV2(classes, width, stages, dropout=0.0)
    stem = network.get_submodule("features.0")
    narrow = stem.get_submodule("0")
    assert isinstance(stem, nn.Sequential) and isinstance(narrow, nn.Conv2d)
    first = nn.Conv2d(input_channels, narrow.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out")  # as torchvision's
    stem[0] = first
    return network
