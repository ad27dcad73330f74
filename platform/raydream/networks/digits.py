"""A small residual network for images of about 8x8 pixels, with a batch normalization after each convolution."""

from torch import nn

from raydream.networks.resnet import ResidualBlock


def digits_network(input_channels: int = 1, classes: int = 10, width: int = 32) -> nn.Module:
    """Build the digits network: a stem and three residual blocks, about 150,000 weights at width 32.

    Args:
        input_channels: C of the images [N,C,H,W].
        classes: K of the logits [N,K].
        width: channels of the first stage; the second and third have twice that number.
    """
    return nn.Sequential(
        nn.Conv2d(input_channels, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        ResidualBlock(width, width, 1),
        ResidualBlock(width, 2 * width, 2),
        ResidualBlock(2 * width, 2 * width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )
