"""Distillation: one step of a student towards its teacher on synthetic images (section 3.1, eq. 1)."""

import math

import torch
from torch import Tensor, nn

from raydream.compute import autocast, choose_dtype
from raydream.config import StudentConfig
from raydream.losses.divergences import kl_divergence
from raydream.losses.feature_statistics import batch_norm_layers
from raydream.seeds import generator
from raydream.students.augmentation import student_view
from raydream.teachers.teacher import Teacher


class Distiller:
    """A student with its optimizer; `step` depends on nothing but its arguments and the state.

    Args:
        teacher: whose outputs are learned.
        student: in whatever device and wrapper it trains in (DDP, say).
        config: of the student.
        total_steps: over which the learning rate decays.
        run_seed: from which each step's random view is derived.
        rank: of this worker; ranks see different views.
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
        self._teacher, self._config = teacher, config
        self._total_steps, self._run_seed, self._rank = total_steps, run_seed, rank
        self._fill = teacher.normalisation.valid_range()[0]
        self._dtype = choose_dtype(config.precision, teacher.device)
        self.optimizer = _optimizer(student, config)

    def step(self, images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """One update.

        Args:
            images: uint8 [N,C,H,W].
            step: its number, from 0.

        Returns:
            the loss, and the share of views on which student and teacher name the same class; scalars.
        """
        self.optimizer.param_groups[0]["lr"] = self.learning_rate(step)
        random = generator(self._run_seed, "view", step, self._rank)
        view = student_view(self._teacher.normalisation(images), self._config.view, self._fill, random)
        view = view.contiguous(memory_format=torch.channels_last)
        self.student.train()
        with autocast(self._dtype, view.device):
            with torch.no_grad():
                teacher_logits = self._teacher.network(view).float()
            student_logits = self.student(view).float()
        loss = kl_divergence(teacher_logits, student_logits, self._config.temperature)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        agreement = (student_logits.argmax(1) == teacher_logits.argmax(1)).float().mean()
        return loss.detach(), agreement

    def learning_rate(self, step: int) -> float:
        """At a step: constant, or half a cosine from the configured rate to 0 over all steps."""
        if self._config.decay == "constant":
            return self._config.learning_rate
        return self._config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / self._total_steps))


def _optimizer(student: nn.Module, config: StudentConfig) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            student.parameters(), config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(student.parameters(), config.learning_rate, weight_decay=config.weight_decay)


def steps_to_settle(student: nn.Module, left: float = 0.01) -> int:
    """Training steps until a student's BN running statistics have forgotten their initial zeros and ones.

    After n updates with momentum m the initial value still weighs (1 - m)^n; this is the n at which at most `left`
    of it remains for the slowest layer (44 for torch's momentum 0.1 and one percent). Before that a student in eval
    mode normalises by numbers that are not its own, and a competition with it teaches nothing.
    """
    momenta = [
        float(layer.momentum)
        for layer in batch_norm_layers(student).values()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.momentum
    ]
    slowest = min(momenta, default=1.0)
    return 1 if slowest >= 1.0 else math.ceil(math.log(left) / math.log(1.0 - slowest))
