"""Tiny networks without batch normalization, from [N,1,8,8] to ten logits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.networks.gathered import gather, keep_statistics


class LayerNorm2d(nn.LayerNorm):
    """A LayerNorm of maps [N,C,H,W], as torchvision and timm have one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """One block of attention over 16 patches, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.place = nn.Parameter(torch.randn(1, 16, 8) * 0.1)
        self.norm_1, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm_2, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        seen = self.norm_1(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        tokens = tokens + self.narrow(functional.gelu(self.wide(self.norm_2(tokens))))
        return self.head(self.norm(tokens.mean(1)))


class TinyConvNext(nn.Module):
    """A block of ConvNeXt with channels last, after a LayerNorm that permutes maps itself, and a GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 4, 2, 2), LayerNorm2d(4)
        self.depthwise, self.block_norm = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.LayerNorm(4)
        self.wide, self.narrow = nn.Linear(4, 16), nn.Linear(16, 4)
        self.group, self.head_norm, self.head = nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x))
        inner = self.block_norm(self.depthwise(x).permute(0, 2, 3, 1))
        x = x + self.narrow(functional.gelu(self.wide(inner))).permute(0, 3, 1, 2)
        return self.head(self.head_norm(self.group(x).mean((2, 3))))


def tiny_plain() -> nn.Module:
    """A network without any normalization."""
    convolutions = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(6, 10))


def tiny_unnormalized(build: Callable[[], nn.Module]) -> nn.Module:
    """One of these that keeps statistics of twelve images of noise."""
    network = build().eval()
    images = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    keep_statistics(network, gather(network, [images]))
    return network
