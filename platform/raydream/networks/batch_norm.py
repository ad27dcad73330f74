"""A network's BN layers, and the statistics of what enters one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from raydream.networks.gathered import gathers

LayerInput = tuple[Tensor, Tensor]
"""input of a BN layer: its mean and biased variance, [2,C], and itself, [N,C] or [N,C,...]"""


def batch_norm_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return a network's BN layers by name, in order of definition; each has `running_mean`, `running_var`.

    These are torch's layers (1d, 2d, 3d, sync) with their subclasses, and detection's FrozenBatchNorm, which also keeps
    the statistics of its training; and other layers, where these keep statistics that were gathered from images.
    """

    def is_one(layer: nn.Module) -> bool:
        named = type(layer).__name__.startswith("FrozenBatchNorm")
        return isinstance(layer, _BatchNorm) or named or gathers(layer)

    return {name: layer for name, layer in network.named_modules() if is_one(layer)}


def keeps_statistics(network: nn.Module) -> bool:
    """Return whether any of a network's BN layers has running statistics to compare with."""
    return any(layer.running_mean is not None for layer in batch_norm_layers(network).values())


class FrozenBatchNorm(nn.Module):
    """A batch normalization in eval mode whose weights take no gradient, for networks that do not train.

    It computes what `nn.BatchNorm2d` computes in eval mode. In fp32 outside of compiled code that is one product and
    one sum: torch's own backward pass (2.15, CPU) would also add up the gradients of the weights, which are not asked
    for, and takes four times as long.

    Args:
        layer: torch's layer, whose running statistics it takes over.
    """

    running_mean: Tensor
    running_var: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__()
        self.eps = layer.eps
        self.weight, self.bias = layer.weight, layer.bias
        for name, value in layer.named_buffers(recurse=False):
            self.register_buffer(name, value)
        self.eval()
        for name in ("scale", "shift"):  # the product's and the sum's other operands, which are no part of the state
            self.register_buffer(name, torch.empty_like(self.running_mean), persistent=False)
        self._prepare()
        self.register_load_state_dict_post_hook(lambda module, _: module._prepare())  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _prepare(self) -> None:
        """Compute the operands, in place, as a captured graph reads them where they are."""
        scale = (self.running_var + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -self.running_mean * scale
        self.scale.copy_(scale)
        self.shift.copy_(shift if self.bias is None else shift + self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalized [N,C] or [N,C,...]; the argument has the name that torch gives it."""
        x = input
        if x.dtype != torch.float32 or torch.compiler.is_compiling():
            statistics = self.running_mean, self.running_var
            return functional.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)
        shape = (1, -1, *[1] * (x.dim() - 2))
        return torch.addcmul(self.shift.view(shape), x, self.scale.view(shape))


def freeze_batch_norm(network: nn.Module) -> None:
    """Replace each of torch's own BN layers that keeps running statistics by a `FrozenBatchNorm`.

    Layers with hooks, and of classes that derive from torch's, stay as they are: they may compute something else.
    """
    made: dict[nn.Module, FrozenBatchNorm] = {}
    for module in list(network.modules()):
        for name, layer in list(module._modules.items()):
            if isinstance(layer, _BatchNorm) and _is_plain(layer):
                made[layer] = made.get(layer) or FrozenBatchNorm(layer)
                setattr(module, name, made[layer])


def _is_plain(layer: _BatchNorm) -> bool:
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return type(layer) in _PLAIN and layer.running_mean is not None and not hooked


_PLAIN = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d

MOST_SUMMED = 2**20
"""values per channel up to which ATen's plain summing in fp32 is exact enough (a relative 1e-4 at a quarter of it)"""
MOST_OFFSET = 20.0
"""standard deviations that a mean may be from 0 for ATen's plain summing; the mean of 2^20 values 1,000 standard
deviations away is off by 10 of them, and the variance by 90 times what it is"""


def moments(x: Tensor, around: Tensor) -> LayerInput:
    """Take the statistics of what enters a BN layer, for `joined`, by whatever is fastest and exact enough.

    Until they have passed through `joined`, the gradients of these statistics mean nothing.

    Args:
        x: [N,C] or [N,C,...], of any precision.
        around: [C], about where the means are expected.
    """
    if torch.compiler.is_compiling():
        return torch.stack(one_pass_statistics(x, around)), x
    return _Moments.apply(x), x


def joined(seen: Sequence[LayerInput]) -> Tensor:
    """Return mean and biased variance of all channels of all layers, [2, C of all of them], in fp32 or better.

    On a CPU, channels whose mean is more than `MOST_OFFSET` standard deviations from 0 are computed again by var_mean.
    """
    statistics = [each for each, _ in seen]
    if torch.compiler.is_compiling():
        return torch.cat(statistics, dim=1)
    return _Joined.apply([x.detach() for _, x in seen], *statistics)  # type: ignore[no-any-return]


def one_pass_statistics(x: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and biased variance, each [C], by two sums.

    The compiler makes one loop of them; its own var_mean takes twice as long.

    The variance is a difference: the mean of (x - around)^2 less the square of the mean of (x - around). With fp32 sums
    of 262,144 values its relative error is below 1e-4 for means within 2 standard deviations of `around`, and below
    1e-2 within 20. An inversion moves the means towards the running ones.

    Farther away nothing corrects it, as `joined` does outside of compiled code: at 1,000 standard deviations the
    variance was 0.56 to 1.18 times what it is, and at 10,000 between -8 and 784 times (see docs/deviations.md).
    """
    over = [0, *range(2, x.dim())]
    centered = _wide(x) - around.view(1, -1, *[1] * (x.dim() - 2))
    offset = centered.mean(over)
    return around + offset, centered.square().mean(over) - offset.square()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class _Moments(torch.autograd.Function):
    """Mean and biased variance, [2,C]; the slope of x is taken from (a, b), [2,C], as (a + b * x) / values per channel.

    `_Joined` computes a and b of all layers at once, as many small operations cost more than the passes through x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        if x.device.type != "cpu" or x.numel() > MOST_SUMMED * x.shape[1]:
            return torch.stack(_exact_statistics(x))
        # One pass, where var_mean takes several on CPU tensors. Running statistics of fp32, which are thrown away,
        # make it answer in fp32 where x is narrower.
        unused = None if x.dtype in (torch.float32, torch.float64) else torch.zeros(x.shape[1])
        return torch.stack(torch.batch_norm_update_stats(x, unused, unused, 0.0))

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        offset, slope = (slopes * (x.shape[1] / x.numel())).view(2, 1, -1, *[1] * (x.dim() - 2))
        return torch.addcmul(offset, x, slope).to(x.dtype)


class _Joined(torch.autograd.Function):
    """The statistics of all layers side by side; turns their gradients into what `_Moments` takes."""

    @staticmethod
    def forward(ctx: Any, entered: list[Tensor], *statistics: Tensor) -> Tensor:
        whole = torch.cat(statistics, dim=1)
        ctx.widths = [each.shape[1] for each in statistics]
        if whole.device.type == "cpu":  # elsewhere var_mean has computed them, and looking would wait for the device
            _correct(whole, entered, ctx.widths)
        ctx.save_for_backward(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (whole,) = ctx.saved_tensors
        of_means, of_variances = gradient
        slopes = 2.0 * of_variances
        offsets = torch.addcmul(of_means, slopes, whole[0], value=-1.0)
        return None, *torch.split(torch.stack((offsets, slopes)), ctx.widths, dim=1)


def _correct(whole: Tensor, entered: list[Tensor], widths: list[int]) -> None:
    """Compute statistics [2, C of all layers] again where a mean is too far from 0.

    An error of the mean enlarges the variance by no more than its square, so such channels are found in spite of their
    errors.
    """
    excess = torch.addcmul(whole[1], whole[0], whole[0], value=-(MOST_OFFSET**-2))
    if not excess.min().item() < 0.0:
        return
    for x, part, exceeding in zip(entered, torch.split(whole, widths, dim=1), torch.split(excess, widths), strict=True):
        far = (exceeding < 0.0).nonzero().flatten()
        if len(far):
            part[:, far] = torch.stack(_exact_statistics(x[:, far]))


def _exact_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(_wide(x), dim=[0, *range(2, x.dim())], correction=0)
    return mean, variance
