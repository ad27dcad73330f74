"""Weights & Biases: the scalars of a run by its own client, with the account that the client is logged in to."""

from collections.abc import Mapping
from typing import Any

import wandb

from raydream.tracking.sinks import Tracked


class WandbSink:
    """Sends scalars to Weights & Biases: a project by the experiment's name, a run in it by the run's id.

    With WANDB_MODE=offline they are kept in the run's folder, from where `wandb sync` sends them later.

    Args:
        tracked: the run. A run that is resumed continues its run in Weights & Biases.

    Raises:
        wandb.Error: the client has no key, or does not reach its server.
    """

    def __init__(self, tracked: Tracked) -> None:
        quiet = wandb.Settings(console="off", quiet=True)  # the run's own lines are shown by the terminal alone
        self._run = wandb.init(
            project=tracked.experiment,
            id=tracked.run,
            name=tracked.run,
            resume="allow",
            dir=str(tracked.path),
            settings=quiet,
        )
        self._known: set[str] = set()
        self._status = 1

    def scalar(self, tag: str, value: float, step: int, moment: float) -> None:
        """Send a value; see `Sink.scalar`."""
        axis = f"{tag.partition('/')[0]}/step"  # curves have steps of their own, and W&B's only ever rise
        if tag not in self._known:
            self._known.add(tag)
            self._run.define_metric(tag, step_metric=axis)
        self._run.log({tag: value, axis: step})

    def finish(self, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Send settings and final figures; see `Sink.finish`."""
        self._run.config.update(dict(settings), allow_val_change=True)
        self._run.summary.update(dict(figures))
        self._status = 0

    def flush(self) -> None:
        """Do nothing: a process of the client's own sends what it is given."""

    def close(self) -> None:
        """Wait until everything is sent, and end the session."""
        self._run.finish(exit_code=self._status)
