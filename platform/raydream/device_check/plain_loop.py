"""The baseline that the engine is timed against: the inversion loop as it is commonly published, for one device.

Eager, fp32, NCHW, weight gradients left on, hooks that take mean and variance in separate passes over a copy, and the
clamped competition. Written independently, from the paper and descriptions of its code; it shares nothing with the
engine but the total variation, the settings and the seeds' meaning.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.compute import autocast
from raydream.config import SynthesisConfig
from raydream.losses.image_prior import total_variation
from raydream.synthesis.stages import Stage, learning_rate
from raydream.teachers.teacher import Teacher


class PlainLoop:
    """One stage of an inversion, update by update.

    Args:
        teacher: its network is put into eval mode, and keeps its gradients.
        student: the network to compete with, or None.
        dtype: autocast to this type, which the published loop offers for ImageNet.
    """

    def __init__(
        self, teacher: Teacher, student: nn.Module | None, config: SynthesisConfig, stage: Stage, dtype: torch.dtype
    ) -> None:
        self._network = teacher.network.eval().requires_grad_(True)
        self._student = None if student is None else student.eval().requires_grad_(True)
        self._teacher, self._config, self._stage, self._dtype = teacher, config, stage, dtype
        self._distances: list[Tensor] = []
        self._feature = torch.zeros(())
        self._hooks = [
            layer.register_forward_hook(self._hook)
            for layer in self._network.modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        ]

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def run(self, targets: Tensor, seed: int, on_update: Callable[[], None] = lambda: None) -> tuple[Tensor, float]:
        """Make all updates; returns normalized pixels, and the summed feature distance at the last update.

        Args:
            on_update: called after each update.
        """
        config, stage, device = self._config, self._stage, self._teacher.device
        random = torch.Generator().manual_seed(seed)
        channels = self._teacher.config.input_shape[0]
        x = torch.randn(len(targets), channels, *stage.size, generator=random).to(device).requires_grad_(True)
        optimizer = torch.optim.Adam([x], stage.learning_rate, stage.betas)
        low, high = self._teacher.normalization.valid_range()
        for iteration in range(stage.iterations):
            optimizer.param_groups[0]["lr"] = learning_rate(config, stage, iteration)
            most = stage.jitter
            down, right = torch.randint(-most, most + 1, (2,), generator=random).tolist()
            view = torch.roll(x, (down, right), dims=(2, 3))
            if config.flip and float(torch.rand((), generator=random)) < 0.5:
                view = view.flip(3)
            loss = self._loss(view, targets)
            optimizer.zero_grad()
            self._network.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            with torch.no_grad():
                x.copy_(torch.max(torch.min(x, high), low))
            on_update()
        return x.detach(), self._feature.item()

    def _loss(self, view: Tensor, targets: Tensor) -> Tensor:
        weights = self._config.coefficients
        self._distances.clear()
        with autocast(self._dtype, view.device):
            logits = self._network(view)
            ours = None if self._student is None else self._student(view)
        feature = torch.stack(self._distances).sum() + (self._config.first_bn - 1.0) * self._distances[0]
        loss: Tensor = weights.classification * functional.cross_entropy(logits.float(), targets)
        loss = loss + weights.tv * total_variation(view) + weights.l2 * torch.norm(view) + weights.feature * feature
        if ours is not None:
            loss = loss + weights.competition * _clamped_competition(logits.float(), ours.float())
        self._feature = feature.detach()
        return loss

    def _hook(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].float()
        mean = x.mean([0, 2, 3])
        variance = x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1).var(1, unbiased=False)
        running_mean, running_variance = layer.running_mean, layer.running_var
        distance = torch.norm(running_variance - variance, 2) + torch.norm(running_mean - mean, 2)  # type: ignore[operator]
        self._distances.append(distance)


def _clamped_competition(teacher: Tensor, student: Tensor) -> Tensor:
    p, q = torch.softmax(student / 3.0, 1), torch.softmax(teacher / 3.0, 1)
    middle = torch.clamp(0.5 * (p + q), 0.01, 0.99)
    p, q = torch.clamp(p, 0.01, 0.99), torch.clamp(q, 0.01, 0.99)
    towards = functional.kl_div(middle.log(), p, reduction="batchmean")
    other = functional.kl_div(middle.log(), q, reduction="batchmean")
    return 1.0 - torch.clamp(0.5 * (towards + other), 0.0, 1.0)
