"""Images of the classes that a network knows, inverted from it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from raydream.config import SynthesisConfig
from raydream.data.splits import Split
from raydream.seeds import derive_seed
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.teachers.teacher import Teacher


class OldClasses(nn.Module):
    """The first outputs of a network that has learned more classes, to compete with.

    Args:
        network: the network itself, not a copy.
        classes: number of its first outputs.
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N,C,H,W] to logits [N,classes]."""
        logits: Tensor = self.network(x)[:, : self.classes]
        return logits


def invert(
    teacher: Teacher,
    config: SynthesisConfig,
    count: int,
    seed: int,
    student: nn.Module | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Split:
    """Invert images of a network's classes in turn, in batches as even as possible.

    Args:
        config: its method is a key of `SYNTHESIZERS`, its batch_size the largest batch.
        count: number of images.
        seed: the seed of all random numbers.
        student: the network to compete with, of the teacher's classes.
        on_progress: called with the share of the work that is done, in [0, 1].

    Returns:
        the images, labeled by their targets.

    Raises:
        SynthesisError: see `Inversion.synthesize`.
    """
    batches = np.array_split(np.arange(count) % teacher.config.classes, -(-count // config.batch_size))
    synthesizer, made = SYNTHESIZERS[config.method](teacher, replace(config, start="noise"), len(batches)), []
    for index, targets in enumerate(batches):

        def report(share: float, index: int = index) -> None:
            on_progress((index + share) / len(batches))

        request = Request(torch.from_numpy(targets), derive_seed(seed, "batch", index), student, None, report)
        made.append(synthesizer.synthesize(request).images.cpu().numpy())
    return Split(np.concatenate(made), np.concatenate(batches).astype(np.int64))
