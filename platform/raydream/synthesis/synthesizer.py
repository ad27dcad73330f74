"""What all synthesizers share: their interface, and when they give up."""

import logging
from collections.abc import Callable
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

    Keep one for all batches of a process: it keeps what was compiled, and the chunk size that memory allowed. What it
    learns from batch to batch is in its `state_dict` and nowhere else.

    Args:
        teacher: frozen and in eval mode; is left as it is.
        config: of the synthesis; its method says what is minimized.
        batches: that the run makes, by which is decided whether compiling pays.

    Attributes:
        engine: what it computes with.
    """

    engine: Engine

    def __init__(self, teacher: Teacher, config: SynthesisConfig, batches: int = 1) -> None: ...

    def state_dict(self) -> dict[str, Tensor]:
        """What has been learned from batch to batch; empty where nothing is."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`; an empty one: nothing has been learned yet."""

    def synthesize(self, request: Request) -> Synthesis:
        """Make one batch.

        Raises:
            SynthesisError: NaN or infinity again after `MAX_RESTARTS` fresh starts, or a single image that does not
                fit into memory; the state is what it was.
        """


def with_restarts(
    attempt: Callable[[Request, torch.Generator, int], Synthesis | None],
    request: Request,
    setting: str,
    learning_rate: float,
) -> Synthesis:
    """Make a batch, and anew from another seed where it diverges.

    Args:
        attempt: makes it from a random generator; None where it diverged. It is also told how often that has happened.
        setting, learning_rate: its name and value, for the error.

    Raises:
        SynthesisError: it diverged again after `MAX_RESTARTS` fresh starts.
    """
    for restart in range(MAX_RESTARTS + 1):
        seed = request.seed if restart == 0 else derive_seed(request.seed, "restart", restart)
        result = attempt(request, torch.Generator().manual_seed(seed), restart)
        if result is not None:
            return result
        log.warning("a batch from seed %d diverged (NaN or infinity); starting it anew", seed)
    raise SynthesisError(
        f"the synthesis diverged {MAX_RESTARTS + 1} times from different seeds: "
        f"lower {setting} ({learning_rate}) or the largest coefficient"
    )
