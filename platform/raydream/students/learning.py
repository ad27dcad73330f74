"""Learning: one update of a network, and the loop over epochs, whatever it learns from."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raydream.compute import autocast, choose_dtype
from raydream.networks.batch_norm import batch_norm_layers
from raydream.seeds import derive_seed

if TYPE_CHECKING:  # `raydream check` takes a step where there is no pyarrow
    from raydream.schedule import Epochs

Batch = TypeVar("Batch")


class UpdateConfig(Protocol):
    """The settings of an update, which students and teachers have in common."""

    @property
    def precision(self) -> str: ...
    @property
    def clip_norm(self) -> float | None: ...
    @property
    def ema(self) -> float: ...


class Learning(ABC, Generic[Batch]):
    """A network with its optimizer; `step` depends on nothing but its arguments and the state.

    Args:
        network: on its training device and in its training wrapper (DDP, say).
        optimizer: of its weights.
        config: settings of an update.
        device: the device of the network.
        run_seed, rank: with the number of a step, the seed of its dropout; ranks draw differently.

    Attributes:
        student: the network that learns, in its training wrapper.
        learned: the network to measure, to save and to compete with: the network itself without its training wrapper,
            or the moving average of its weights if configured.
        frozen_from: the step from which BN layers normalize by their running statistics, and keep them; None: never.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: UpdateConfig,
        device: torch.device,
        run_seed: int,
        rank: int,
    ) -> None:
        self.student, self.optimizer = network, optimizer
        self.frozen_from: int | None = None
        self._update_config, self._run_seed, self._rank = config, run_seed, rank
        self._dtype = choose_dtype(config.precision, device)
        self._network = network.module if isinstance(network, DistributedDataParallel) else network
        self.learned = copy.deepcopy(self._network).eval().requires_grad_(False) if config.ema else self._network

    @abstractmethod
    def step(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Make one update on a batch; returns the loss, and the share of views that are named as wanted; scalars."""

    @abstractmethod
    def learning_rate(self, step: int) -> float:
        """Return the learning rate at a step."""

    def optimizer_settings(self, step: int) -> dict[str, Any]:
        """Return the optimizer's settings that change from step to step."""
        return {"lr": self.learning_rate(step)}

    def update(self, view: Tensor, step: int, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Make one update.

        Args:
            view: float32 [N,C,H,W], as the network sees images.
            step: its number, from 0.
            loss: returns the loss of logits [N,K], in float32.

        Returns:
            the loss, and the logits before the update.
        """
        config = self._update_config
        self.optimizer.param_groups[0].update(self.optimizer_settings(step))
        self.student.train()
        if self.frozen_from is not None and step >= self.frozen_from:
            for layer in batch_norm_layers(self.student).values():
                layer.eval()
        torch.manual_seed(derive_seed(self._run_seed, "dropout", step, self._rank))  # of networks that have any
        with autocast(self._dtype, view.device):
            logits = self.student(view).float()
        value = loss(logits)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.student.parameters(), config.clip_norm)
        self.optimizer.step()
        if config.ema:
            update_average(self.learned, self._network, min(config.ema, (1 + step) / (10 + step)))
        return value.detach(), logits.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return all that a step depends on besides its arguments, for a checkpoint."""
        state = {"student": self._network.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state | ({"average": self.learned.state_dict()} if self._update_config.ema else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a checkpoint that `state_dict` returned."""
        self._network.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._update_config.ema:
            self.learned.load_state_dict(state["average"])


def learn_epochs(
    learning: Learning[Batch],
    epochs: "Epochs",
    first: int,
    batches: Callable[[int], Iterator[Batch]],
    on_step: Callable[[int, Tensor, Tensor], None] = lambda step, loss, agreement: None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train a network over epochs: the loop of teachers, and of students on finished images.

    Args:
        epochs: the passes over the images.
        first: number of epochs done before.
        batches: returns the batches of an epoch, numbered from 0, one for each step.
        on_step: called after each step with the number of steps done, and what `Learning.step` returned.
        on_epoch: called after each epoch with the number of epochs done.
    """
    for epoch in range(first, epochs.count):
        source = batches(epoch)
        for step in range(epoch * epochs.steps, (epoch + 1) * epochs.steps):
            on_step(step + 1, *learning.step(next(source), step))
        next(source, None)  # a stream must end before the next epoch's begins
        on_epoch(epoch + 1)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, kept: float) -> None:
    """Move an average of weights towards a network's; BN's running statistics are averaged as weights are.

    So the statistics stay those of the weights that they are averaged with. Counters are copied.

    Args:
        average: a copy of the network.
        kept: weight in [0, 1) of the previous average.
    """
    averaged, values = [], []
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            averaged.append(mean)
            values.append(value)
        else:
            mean.copy_(value)
    torch._foreach_lerp_(averaged, values, 1.0 - kept)
