"""The interface of all synthesizers, and their restarts after divergence."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from raydream.config import SynthesisConfig
from raydream.errors import SynthesisError
from raydream.seeds import derive_seed
from raydream.synthesis.engine import Engine
from raydream.synthesis.request import Request, Synthesis
from raydream.teachers.teacher import Teacher

log = logging.getLogger(__name__)

MAX_RESTARTS = 3


class Synthesizer(Protocol):
    """An algorithm that makes images.

    Use one object for all batches of a process: it keeps compiled code and the chunk size that memory allowed. All that
    it learns from batch to batch is in its `state_dict`.

    Args:
        teacher: frozen and in eval mode; stays unchanged.
        config: the synthesis configuration; its method defines the objective.
        batches: number of batches in the run, which decides whether compiling pays off.

    Attributes:
        engine: computes gradients and logits.
    """

    engine: Engine

    def __init__(self, teacher: Teacher, config: SynthesisConfig, batches: int = 1) -> None: ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state learned from batch to batch; empty for a method that learns nothing."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state that `state_dict` returned; an empty one means that nothing has been learned yet."""

    def synthesize(self, request: Request) -> Synthesis:
        """Make one batch.

        Raises:
            SynthesisError: NaN or infinity again after `MAX_RESTARTS` fresh starts, or a single image that does not fit
                into memory; the state is unchanged.
            ShardError: the request's checkpoint is not one of this batch; the state is unchanged.
        """


def with_restarts(
    attempt: Callable[[Request, torch.Generator, int], Synthesis | None],
    request: Request,
    setting: str,
    learning_rate: float,
) -> Synthesis:
    """Make a batch, and start again from another seed where it diverges; a checkpoint is of one of these attempts.

    Args:
        attempt: makes the batch, given a random generator and the number of divergences so far; None where it diverged.
        setting, learning_rate: name and value of the learning rate, for the error.

    Raises:
        SynthesisError: it diverged again after `MAX_RESTARTS` fresh starts.
    """
    begun = 0 if request.checkpoint is None else request.checkpoint.restarts
    for restart in range(begun, MAX_RESTARTS + 1):
        seed = request.seed if restart == 0 else derive_seed(request.seed, "restart", restart)
        result = attempt(request, torch.Generator().manual_seed(seed), restart)
        if result is not None:
            return result
        request = replace(request, checkpoint=None)
        log.warning("a batch from seed %d diverged (NaN or infinity); starting again from another seed", seed)
    raise SynthesisError(
        f"the synthesis diverged {MAX_RESTARTS + 1} times from different seeds: "
        f"lower {setting} ({learning_rate}) or the largest coefficient"
    )
