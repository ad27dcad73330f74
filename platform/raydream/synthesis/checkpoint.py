"""Checkpoints of an attempt at a batch: enough to continue it to the same bits in another process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from raydream.errors import ShardError, first_line

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""Adam's state of a parameter"""


@dataclass(frozen=True)
class Record:
    """The record of an attempt after some of its updates, in values that JSON can hold.

    Attributes:
        updates: number of updates done.
        curve: each term over the updates, as (update, value) pairs.
        distances: feature distance of each BN layer at the last recorded update.
    """

    updates: int
    curve: dict[str, list[tuple[int, float]]]
    distances: list[float]


@dataclass(frozen=True)
class Checkpoint:
    """The state of an attempt at a batch after some of its updates.

    Attributes:
        restarts: number of attempts before it, which diverged.
        record: of its updates so far.
        tensors: on the CPU: the state of the random generator, the optimized parameters, Adam's moments, and what
            else an attempt keeps from update to update.
    """

    restarts: int
    record: Record
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        restarts: int,
        record: Record,
        random: torch.Generator,
        optimizer: torch.optim.Optimizer,
        **kept: Tensor,
    ) -> "Checkpoint":
        """Copy the state of an attempt between two updates.

        Args:
            kept: what an attempt keeps from update to update, by its name.
        """
        tensors = {"random": random.get_state(), **{f"kept.{name}": value for name, value in kept.items()}}
        for index, parameter in enumerate(_parameters(optimizer)):
            tensors[f"parameter.{index}"] = parameter
            tensors |= {f"adam.{index}.{name}": value for name, value in optimizer.state[parameter].items()}
        return cls(restarts, record, {name: _copied(value.detach()) for name, value in tensors.items()})

    def restore_random(self, random: torch.Generator) -> None:
        """Restore the state of the random generator; raises ShardError if it is none."""
        try:
            random.set_state(self.like("random", random.get_state()))
        except RuntimeError as error:
            raise ShardError(f"the checkpoint is not one of this batch ({first_line(error)})") from error

    def restore_parameters(self, optimizer: torch.optim.Optimizer) -> None:
        """Restore the values of an optimizer's parameters, and its moments; raises ShardError if they do not fit it."""
        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(_parameters(optimizer)):
            with torch.no_grad():
                parameter.copy_(self.like(f"parameter.{index}", parameter))
            likes = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
            state[index] = {name: self.like(f"adam.{index}.{name}", likes[name]) for name in MOMENTS}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def like(self, name: str, like: Tensor) -> Tensor:
        """Return a copy of a tensor in the memory format of another, and on its device.

        Raises:
            ShardError: it is missing, or of another shape or type than the other.
        """
        value = self.tensors.get(name)
        if value is None or value.shape != like.shape or value.dtype != like.dtype:
            raise ShardError(f"the checkpoint is not one of this batch (its {name})")
        return torch.empty_like(like, requires_grad=False).copy_(value)


OnUpdate = Callable[[Callable[[], Checkpoint]], None]
"""called after each update but the last with a function that copies the state, which is to be called only when due"""


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _copied(value: Tensor) -> Tensor:
    """Copy a tensor to the CPU, contiguous, as it is in a file."""
    return torch.empty(value.shape, dtype=value.dtype).copy_(value)
