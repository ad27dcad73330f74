"""Distillation: one step of a student towards its teacher on synthetic images (section 3.1, eq. 1)."""

import math

import torch
from torch import Tensor, nn

from raydream.compute import autocast
from raydream.config import StudentConfig
from raydream.errors import DivergenceError
from raydream.losses.divergences import kl_divergence
from raydream.networks.batch_norm import batch_norm_layers
from raydream.seeds import generator
from raydream.students.learning import Learning
from raydream.students.view import StudentView
from raydream.teachers.teacher import Teacher


def check_finite(student: nn.Module) -> None:
    """Raise DivergenceError where a student has none but broken weights."""
    if not all(value.isfinite().all() for value in student.state_dict().values()):
        raise DivergenceError("the student diverged: lower student.learning_rate")


class Distiller(Learning[Tensor]):
    """A student with its optimizer, and the teacher whose outputs it learns.

    Args:
        teacher: the network whose outputs are learned.
        student: on its training device and in its training wrapper (DDP, say).
        config: the student's configuration.
        total_steps: number of steps over which the learning rate decays.
        run_seed: the seed from which each step's random view is derived.
        rank: this worker's rank; ranks see different views.
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
        super().__init__(student, make_optimizer(student, config), config, teacher.device, run_seed, rank)
        self._teacher, self._config, self._total_steps = teacher, config, total_steps
        self._view = StudentView(config.view, teacher.normalization)

    def step(self, batch: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Make one update.

        Args:
            batch: images, uint8 [N,C,H,W].
            step: its number, from 0.

        Returns:
            the loss, and the share of views on which student and teacher name the same class; scalars.
        """
        random = generator(self._run_seed, "view", step, self._rank)
        view = self._view(batch, random).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(self._dtype, view.device):
            teacher_logits = self._teacher.network(view).float()
        temperature = self._config.temperature
        loss, student_logits = self.update(
            view, step, lambda logits: kl_divergence(teacher_logits, logits, temperature)
        )
        return loss, (student_logits.argmax(1) == teacher_logits.argmax(1)).float().mean()

    def learning_rate(self, step: int) -> float:
        """Return the learning rate at a step; see the function of this name."""
        return learning_rate(self._config, step, self._total_steps)


def learning_rate(config: StudentConfig, step: int, total_steps: int) -> float:
    """Return a step's learning rate: a linear warm-up, then constant, falling at milestones, or half a cosine to 0."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / config.warm_up
    if config.decay == "constant":
        return config.learning_rate
    if config.decay == "step":
        passed = sum(step >= milestone * total_steps for milestone in config.milestones)
        return config.learning_rate * config.step_factor**passed
    return config.learning_rate * cosine(step, config.warm_up, total_steps)


def cosine(step: int, warm_up: int, total_steps: int) -> float:
    """Return the share of the learning rate at a step: half a cosine from 1 at the end of the warm-up to 0."""
    begun = min(warm_up, total_steps - 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - begun) / (total_steps - begun)))


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
