"""Supervised training of a teacher on real data."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from raydream.augmentation import random_shift
from raydream.config import TeacherConfig, TrainingConfig
from raydream.data.splits import Split
from raydream.networks import build_teacher
from raydream.seeds import derive_seed, generator
from raydream.teachers.normalization import Normalization

OnEpoch = Callable[[int, float, nn.Module], None]

CPU = torch.device("cpu")


def train_teacher(
    teacher: TeacherConfig,
    training: TrainingConfig,
    train: Split,
    on_epoch: OnEpoch = lambda epoch, loss, network: None,
    device: torch.device = CPU,
) -> nn.Module:
    """Train a network from scratch with cross-entropy, AdamW and a one-cycle schedule.

    Args:
        train: labeled real images.
        on_epoch: called with (epoch from 1, mean loss, network on the device) after each.
        device: the device to train on; all images lie in its memory.

    Returns:
        the network in eval mode, on the CPU.
    """
    torch.manual_seed(derive_seed(training.seed, "teacher weights"))
    network = build_teacher(teacher).to(device)
    normalization = Normalization(teacher.mean, teacher.std).to(device)
    black = normalization.valid_range()[0]
    x, labels = normalization(torch.from_numpy(train.images)), torch.from_numpy(train.labels).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=training.weight_decay)
    steps = training.epochs * -(-len(x) // training.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, total_steps=steps)
    for epoch in range(1, training.epochs + 1):
        random = generator(training.seed, "teacher order", epoch)
        losses = []
        network.train()
        for rows in torch.split(torch.randperm(len(x), generator=random), training.batch_size):
            view = random_shift(x[rows], training.shift, black, random)
            loss = functional.cross_entropy(network(view), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        on_epoch(epoch, torch.stack(losses).mean().item(), network)
    return network.cpu().eval()
