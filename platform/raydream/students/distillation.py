"""Distillation: one step of a student towards its teacher on synthetic images (section 3.1, eq. 1)."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raydream.compute import autocast, choose_dtype
from raydream.config import StudentConfig
from raydream.errors import DivergenceError
from raydream.losses.divergences import kl_divergence
from raydream.networks.batch_norm import batch_norm_layers
from raydream.seeds import derive_seed, generator
from raydream.students.view import StudentView
from raydream.teachers.teacher import Teacher


def check_finite(student: nn.Module) -> None:
    """Raise DivergenceError where a student has none but broken weights."""
    if not all(value.isfinite().all() for value in student.state_dict().values()):
        raise DivergenceError("the student diverged: lower student.learning_rate")


class Distiller:
    """A student with its optimizer; `step` depends on nothing but its arguments and the state.

    Args:
        teacher: the network whose outputs are learned.
        student: on its training device and in its training wrapper (DDP, say).
        config: the student's configuration.
        total_steps: number of steps over which the learning rate decays.
        run_seed: the seed from which each step's random view is derived.
        rank: this worker's rank; ranks see different views.

    Attributes:
        learned: the network to measure, to save and to compete with: the student itself without its training wrapper,
            or the moving average of its weights if configured.
        frozen_from: the step from which BN layers normalize by their running statistics, and keep them; None: never.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: nn.Module,
        config: StudentConfig,
        total_steps: int,
        run_seed: int,
        rank: int = 0,
    ) -> None:
        self.student = student
        self.frozen_from: int | None = None
        self._teacher, self._config = teacher, config
        self._total_steps, self._run_seed, self._rank = total_steps, run_seed, rank
        self._view = StudentView(config.view, teacher.normalization)
        self._dtype = choose_dtype(config.precision, teacher.device)
        self.optimizer = make_optimizer(student, config)
        self._network = student.module if isinstance(student, DistributedDataParallel) else student
        self.learned = copy.deepcopy(self._network).eval().requires_grad_(False) if config.ema else self._network

    def step(self, images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Make one update.

        Args:
            images: uint8 [N,C,H,W].
            step: its number, from 0.

        Returns:
            the loss, and the share of views on which student and teacher name the same class; scalars.
        """
        self.optimizer.param_groups[0]["lr"] = self.learning_rate(step)
        random = generator(self._run_seed, "view", step, self._rank)
        view = self._view(images, random).contiguous(memory_format=torch.channels_last)
        self.student.train()
        if self.frozen_from is not None and step >= self.frozen_from:
            for layer in batch_norm_layers(self.student).values():
                layer.eval()
        torch.manual_seed(derive_seed(self._run_seed, "dropout", step, self._rank))  # of students that have any
        with autocast(self._dtype, view.device):
            with torch.no_grad():
                teacher_logits = self._teacher.network(view).float()
            student_logits = self.student(view).float()
        loss = kl_divergence(teacher_logits, student_logits, self._config.temperature)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self._config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.student.parameters(), self._config.clip_norm)
        self.optimizer.step()
        if self._config.ema:
            update_average(self.learned, self._network, min(self._config.ema, (1 + step) / (10 + step)))
        agreement = (student_logits.argmax(1) == teacher_logits.argmax(1)).float().mean()
        return loss.detach(), agreement

    def learning_rate(self, step: int) -> float:
        """Return the learning rate at a step; see the function of this name."""
        return learning_rate(self._config, step, self._total_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a step depends on besides its arguments, for a checkpoint."""
        state = {"student": self._network.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state | ({"average": self.learned.state_dict()} if self._config.ema else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a checkpoint that `state_dict` returned."""
        self._network.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._config.ema:
            self.learned.load_state_dict(state["average"])


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, kept: float) -> None:
    """Move an average of weights towards a network's; BN's running statistics are averaged as weights are.

    So the statistics stay those of the weights that they are averaged with. Counters are copied.

    Args:
        average: a copy of the network.
        kept: weight in [0, 1) of the previous average.
    """
    averaged, values = [], []
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            averaged.append(mean)
            values.append(value)
        else:
            mean.copy_(value)
    torch._foreach_lerp_(averaged, values, 1.0 - kept)


def learning_rate(config: StudentConfig, step: int, total_steps: int) -> float:
    """Return a step's learning rate: a linear warm-up, then constant, falling at milestones, or half a cosine to 0."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    if config.decay == "constant":
        return config.learning_rate
    if config.decay == "step":
        passed = sum(step >= milestone * total_steps for milestone in config.milestones)
        return config.learning_rate * config.step_factor**passed
    begun = min(config.warm_up, total_steps - 1)
    share = math.pi * (step - begun) / (total_steps - begun)
    return config.learning_rate * 0.5 * (1.0 + math.cos(share))


def make_optimizer(student: nn.Module, config: StudentConfig) -> torch.optim.Optimizer:
    """Make a student's optimizer, which updates all weights in one call; each step sets its learning rate."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(student.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=decay, fused=True)
    return torch.optim.AdamW(student.parameters(), rate, weight_decay=decay, fused=True)


def steps_to_settle(student: nn.Module, left: float = 0.01) -> int:
    """Training steps until a student's BN running statistics have forgotten their initial zeros and ones.

    After n updates with momentum m the initial value still weighs (1 - m)^n; this is the n at which at most `left`
    of it remains for the slowest layer (44 for torch's momentum 0.1 and one percent). Before that a student in eval
    mode normalizes by wrong statistics, and competing with it teaches nothing.
    """
    momenta = [
        float(layer.momentum)
        for layer in batch_norm_layers(student).values()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.momentum
    ]
    slowest = min(momenta, default=1.0)
    return 1 if slowest >= 1.0 else math.ceil(math.log(left) / math.log(1.0 - slowest))
