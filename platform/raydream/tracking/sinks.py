"""Sinks: the places that a run's scalars are sent to, and how those of the optional trackers are opened."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raydream.commands import imported
from raydream.errors import InputError, RaydreamError, first_line
from raydream.extras import require

TRACKERS = {
    "mlflow": "raydream.tracking.mlflow_sink:MLflowSink",
    "wandb": "raydream.tracking.wandb_sink:WandbSink",
}
"""sinks that a user asks for, by the word that `--track` takes, which is also the name of their extra"""


@dataclass(frozen=True)
class Tracked:
    """The run that a sink shows.

    Attributes:
        run: its id, under which a tracker also finds it again when it is resumed.
        experiment: name of the experiment, under which a tracker keeps it.
        path: of the run's folder on this machine.
    """

    run: str
    experiment: str
    path: Path


class Sink(Protocol):
    """Takes the scalars of one run. A method may raise any exception, which its caller handles."""

    def scalar(self, tag: str, value: float, step: int, moment: float) -> None:
        """Take a value.

        Args:
            tag: name of the curve, as `group/name`.
            step: its place on the horizontal axis.
            moment: seconds since the epoch.
        """

    def finish(self, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Take the settings that runs are compared by, by dotted name, and the final figures by tag."""

    def flush(self) -> None:
        """Send everything taken so far."""

    def close(self) -> None:
        """Send everything, and end the session."""


def trackers_of(text: str) -> tuple[str, ...]:
    """Return the trackers that `--track` names, separated by commas.

    Raises:
        InputError: one is unknown, or its extra is not installed.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in TRACKERS:
            raise InputError("--track", name, " or ".join(TRACKERS), "name these, separated by a comma")
        require(name, f"--track {name}")
    return names


def open_trackers(names: Sequence[str], tracked: Tracked, note: Callable[[str], None]) -> "list[Sink]":
    """Open the sinks of these trackers.

    Args:
        note: called with a sentence where one fails later.

    Raises:
        RaydreamError: one cannot be opened, such as for lack of a server or of a key.
    """
    return [OptionalSink(name, tracked, note) for name in names]


class OptionalSink:
    """A sink that a run can lose: it is dropped at its first failure, and a note says so.

    A run of hours is not ended by a server that only watches it, nor does it wait for that server again and again.

    Args:
        name: of its tracker.
        note: called with a sentence about the failure.

    Raises:
        RaydreamError: it cannot be opened.
    """

    def __init__(self, name: str, tracked: Tracked, note: Callable[[str], None]) -> None:
        self._name, self._note = name, note
        try:
            self._sink: Sink | None = imported(TRACKERS[name])(tracked)
        except Exception as error:  # the clients raise errors of many kinds
            reason = f"--track {name} failed: {first_line(error)}"
            raise RaydreamError(f"{reason}; correct this, or leave the option out") from error

    def scalar(self, tag: str, value: float, step: int, moment: float) -> None:
        self._try(lambda sink: sink.scalar(tag, value, step, moment))

    def finish(self, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        self._try(lambda sink: sink.finish(settings, figures))

    def flush(self) -> None:
        self._try(lambda sink: sink.flush())

    def close(self) -> None:
        self._try(lambda sink: sink.close())

    def _try(self, call: Callable[[Sink], None]) -> None:
        if self._sink is None:
            return
        try:
            call(self._sink)
        except Exception as error:
            self._sink = None
            self._note(f"{self._name} failed, and gets no further curves of this session: {first_line(error)}")
