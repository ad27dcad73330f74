"""Distances between two networks' outputs, computed in log space so that no probability underflows."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def kl_divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation (eq. 1): KL(p_T || p_S) of softened outputs, mean over the batch, times T squared.

    T squared keeps the gradient's size whatever the temperature (Hinton et al. 2015).

    Args:
        teacher_logits, student_logits: [N,K].
        temperature: T > 0.

    Returns:
        a scalar >= 0, in nats times T squared.
    """
    log_teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    log_student = functional.log_softmax(student_logits / temperature, dim=1)
    return functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def jensen_shannon(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """JS(p_T, p_S) of eq. 8 for each image: half of KL(p_T || M) plus half of KL(p_S || M), M their mean.

    Args:
        teacher_logits, student_logits: [N,K].
        temperature: > 0.

    Returns:
        [N], each in [0, ln 2] nats.
    """
    log_teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    log_student = functional.log_softmax(student_logits / temperature, dim=1)
    log_mean = torch.logaddexp(log_teacher, log_student) - math.log(2.0)
    towards_teacher = (log_teacher.exp() * (log_teacher - log_mean)).sum(dim=1)
    towards_student = (log_student.exp() * (log_student - log_mean)).sum(dim=1)
    return 0.5 * (towards_teacher + towards_student)


def competition(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """R_compete of eq. 8: 1 - JS(p_T, p_S), mean over the batch; small where teacher and student disagree.

    JS is at most ln 2, so the value lies in [1 - ln 2, 1] = [0.307, 1]. The published code clamps probabilities
    and swaps the arguments of KL; this is the equation as printed.

    Args:
        teacher_logits, student_logits: [N,K].
        temperature: > 0 (the published code: 3).
    """
    return 1.0 - jensen_shannon(teacher_logits, student_logits, temperature).mean()


def masked_kl(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Minus the mean of 1[argmax p_S = argmax p_T] KL(p_T || p_S) (FastDFKD, AAAI 2022; NAYER, CVPR 2024).

    It is low where the student predicts the teacher's class but otherwise differs from the teacher. Images on which
    they already disagree do not contribute, so that no image is driven out of its class. It has no lower bound.

    Args:
        teacher_logits, student_logits: [N,K].

    Returns:
        a scalar <= 0, in nats.
    """
    log_teacher = functional.log_softmax(teacher_logits, dim=1)
    log_student = functional.log_softmax(student_logits, dim=1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
    agrees = log_teacher.argmax(dim=1) == log_student.argmax(dim=1)
    return -(divergence * agrees).mean()
