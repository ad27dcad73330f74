"""The request to a synthesizer, and its result."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from raydream.synthesis.checkpoint import Checkpoint, OnUpdate

OnProgress = Callable[[float], None]


@dataclass(frozen=True)
class Request:
    """One batch to make.

    Attributes:
        targets: int64 [N], the class that each image is to show.
        seed: the seed of the first pixels or the latent codes, the jitter and the flips.
        student: a network to compete with, or None; its weights are copied.
        start: uint8 [N,C,H,W] to start from, or None for N(0, 1).
        on_progress: called after each update with the share of updates done, in [0, 1].
        checkpoint: the state of this batch after some updates, to continue; None: begin.
        on_update: see `OnUpdate`.
    """

    targets: Tensor
    seed: int
    student: nn.Module | None = None
    start: Tensor | None = None
    on_progress: OnProgress = lambda share: None
    checkpoint: Checkpoint | None = None
    on_update: OnUpdate = lambda copied: None


@dataclass(frozen=True)
class Synthesis:
    """The result of a synthesizer.

    Attributes:
        images: uint8 [N,C,H,W].
        losses: each term's value at the last update, before its coefficient.
        distances: feature distance of each BN layer at the last update; empty where it is not measured.
        curve: each term over the updates of all stages, as (update, value) pairs.
        restarts: number of times that the batch diverged and was started again from another seed.
        notes: deviations from the request (out of memory, no compiler), one sentence each.
        targets: int64 [N], the class that the teacher sees in each image, where the method ignores the requested
            classes; None: those of the request.
    """

    images: Tensor
    losses: dict[str, float]
    distances: dict[str, float] = field(default_factory=dict)
    curve: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    restarts: int = 0
    notes: tuple[str, ...] = ()
    targets: Tensor | None = None
