"""The recorder: writes each measurement to the run's metrics table, and shows it in TensorBoard and other trackers."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raydream.runs.metrics_table import MetricsTable
from raydream.tracking.pictures import class_pictures
from raydream.tracking.sinks import Sink
from raydream.tracking.tags import charts_of, compared, tag_of
from raydream.tracking.tensorboard_sink import TensorBoardSink


@dataclass(frozen=True)
class Place:
    """The round, and the batch by its id, that a row belongs to; either may be left out."""

    round: int | None = None
    batch: str | None = None


NOWHERE = Place()


class Recorder:
    """Collects the rows of a run's metrics table, and sends its curves to sinks.

    Args:
        metrics: path of metrics.parquet; rows of earlier sessions are kept, and time continues after them.
        tensorboard: folder of TensorBoard's events, named as the run.
        began_at: seconds since the epoch when this session began.
        trackers: sinks of the same scalars, beside TensorBoard.

    Attributes:
        damage: of the metrics of earlier sessions; see `MetricsTable`.
    """

    def __init__(self, metrics: Path, tensorboard: Path, began_at: float, trackers: Sequence[Sink] = ()) -> None:
        self._table = MetricsTable(metrics)
        self.damage = self._table.damage
        now, clock = time.time(), time.monotonic()
        self._zero = began_at - self._table.end_s
        self._clock_zero = clock - (now - began_at) - self._table.end_s
        self._board = TensorBoardSink(tensorboard)
        self._sinks: list[Sink] = [self._board, *trackers]

    def time_s(self, moment: float) -> float:
        """Return the seconds since the run began at a moment in seconds since the epoch.

        At most those until now, so that a clock that was set forth does not prolong the run for its later sessions.
        """
        return min(moment - self._zero, self.elapsed_s)

    @property
    def elapsed_s(self) -> float:
        """Return the seconds that the run has taken, in all its sessions."""
        return time.monotonic() - self._clock_zero

    def point(
        self, moment: float, source: str, name: str, value: float, *, step: int, place: Place = NOWHERE, tag: str = ""
    ) -> None:
        """Record a value at a moment in the table, and show it.

        Args:
            step: distillation step, in the table and on the curve's horizontal axis.
            tag: of its curve; empty: that of its name, see `tag_of`.
        """
        self.row(moment, source, name, value, step=step, place=place)
        self.show(moment, tag or tag_of(name), value, step)

    def row(self, moment: float, source: str, name: str, value: float, *, step: int, place: Place = NOWHERE) -> None:
        """Record a value in the table alone.

        Args:
            step: distillation step, or update of the pixels for a loss term.
        """
        self._table.append((self.time_s(moment), None, source, name, place.round, step, place.batch, float(value)))

    def show(self, moment: float, tag: str, value: float, step: int) -> None:
        """Show a value in TensorBoard and the other trackers alone; see `Sink.scalar`."""
        for sink in self._sinks:
            sink.scalar(tag, value, step, moment)

    def span(self, start: float, seconds: float, source: str, name: str, place: Place = NOWHERE) -> None:
        """Record a span: what a source did, and its duration."""
        row = (self.time_s(start), seconds, source, f"span/{name}", place.round, None, place.batch, None)
        self._table.append(row)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the duration of a `with` block as a span of the driver."""
        start, clock = time.time(), time.monotonic()
        try:
            yield
        finally:
            self.span(start, time.monotonic() - clock, "driver", name)

    def pictures(self, images: np.ndarray, targets: np.ndarray, step: int) -> None:
        """Show images uint8 [N,C,H,W] by their classes, int [N], in TensorBoard."""
        for name, picture in class_pictures(images, targets):
            self._board.picture(f"synthetic_images/{name}", picture, step)

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        """Give TensorBoard the layout of charts for these nested settings, and texts in Markdown by their tags."""
        if charts := charts_of(settings):
            self._board.charts(charts)
        for tag, text in texts.items():
            self._board.text(tag, text)

    def finish(self, settings: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Show a run beside others, as in TensorBoard's HParams.

        Args:
            settings: of the run, nested, of which those are shown that usually differ between runs.
            summary: its final figures, of which the floats are shown.
        """
        figures = {f"summary/{name}": value for name, value in summary.items() if isinstance(value, float)}
        for sink in self._sinks:
            sink.finish(compared(settings), figures)

    def latest(self, name: str) -> dict[int, float]:
        """Return the last value of a name at each step, including earlier sessions of the run."""
        table = self.table()
        rows = table[table["name"] == name]
        return {int(step): float(value) for step, value in zip(rows["step"], rows["value"], strict=True)}

    def seconds_by_stage(self) -> dict[str, float]:
        """Return the seconds of each of the driver's stages, in order, including earlier sessions of the run."""
        table = self.table()
        spans = table[table["name"].str.startswith("span/")]
        stages = spans[spans["source"] == "driver"].groupby("name", sort=False)["duration_s"].sum()
        return {str(name).removeprefix("span/"): float(seconds) for name, seconds in stages.items()}

    def table(self) -> pd.DataFrame:
        """Return all rows so far; see `COLUMNS`. Raises ShardError as `MetricsTable.frame`."""
        return self._table.frame()

    def flush(self) -> None:
        """Write the new rows to the disk, and send all curves; raises OSError."""
        self._table.flush()
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        """Merge all rows into one metrics.parquet, and close the sinks; raises as `MetricsTable.merge`."""
        self._table.merge()
        for sink in self._sinks:
            sink.close()


def union_length(spans: Sequence[tuple[float, float]]) -> float:
    """Return the seconds covered by at least one of the spans (start, end)."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def overlap_share(metrics: pd.DataFrame) -> float:
    """Return the share in [0, 1] of the student's training time during which a generator was making images.

    Args:
        metrics: rows of `COLUMNS`, with the spans "span/train" and "span/make".
    """

    def spans(name: str) -> list[tuple[float, float]]:
        rows = metrics[metrics["name"] == name]
        return list(zip(rows["time_s"], rows["time_s"] + rows["duration_s"], strict=True))

    train, make = spans("span/train"), spans("span/make")
    both = union_length(train) + union_length(make) - union_length(train + make)
    return both / union_length(train) if train else 0.0
