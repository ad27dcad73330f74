"""What all synthesizers share: what they are asked for, what they answer, and when they give up."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from raydream.config import SynthesisConfig
from raydream.errors import SynthesisError
from raydream.seeds import derive_seed
from raydream.teachers.teacher import Teacher

if TYPE_CHECKING:
    from raydream.synthesis.engine import Engine

log = logging.getLogger(__name__)

OnProgress = Callable[[float], None]

MAX_RESTARTS = 3


@dataclass(frozen=True)
class Request:
    """One batch to make.

    Attributes:
        targets: int64 [N], the class that each image is to show.
        seed: of the first pixels or the latent codes, the jitter and the flips.
        student: a network to compete with, or None; its weights are copied.
        start: uint8 [N,C,H,W] to start from, or None for N(0, 1).
        on_progress: told after each update which share of them is done, in [0, 1].
    """

    targets: Tensor
    seed: int
    student: nn.Module | None = None
    start: Tensor | None = None
    on_progress: OnProgress = lambda share: None


@dataclass(frozen=True)
class Synthesis:
    """What a synthesizer returns.

    Attributes:
        images: uint8 [N,C,H,W].
        losses: each term's value at the last update, before its coefficient.
        distances: feature distance of each BN layer at the last update; empty where it is not measured.
        curve: each term over the updates of all stages, as (update, value) pairs.
        restarts: how often the batch diverged and was started anew from another seed.
        notes: what did not go as asked (out of memory, no compiler), in sentences.
        targets: int64 [N], the class that the teacher sees in each image, where the classes that were asked for could
            not be; None: those of the request.
    """

    images: Tensor
    losses: dict[str, float]
    distances: dict[str, float] = field(default_factory=dict)
    curve: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    restarts: int = 0
    notes: tuple[str, ...] = ()
    targets: Tensor | None = None


class Synthesizer(Protocol):
    """An algorithm that makes images.

    Keep one for all batches of a process: it keeps what was compiled, and the chunk size that memory allowed. What it
    learns from batch to batch is in its `state_dict` and nowhere else.

    Args:
        teacher: frozen and in eval mode; is left as it is.
        config: of the synthesis.
        batches: that the run makes, by which is decided whether compiling pays.

    Attributes:
        engine: what it computes with.
    """

    engine: "Engine"

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
