"""The recorder: writes each measurement to both the run's metrics table and its TensorBoard events."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter

from raydream.config.tree import leaves
from raydream.runs.metrics_table import MetricsTable


@dataclass(frozen=True)
class Place:
    """The round, and the batch by its id, that a row belongs to; either may be left out."""

    round: int | None = None
    batch: str | None = None


NOWHERE = Place()


class Recorder:
    """Collects rows and writes events.

    Args:
        metrics: path of metrics.parquet; rows of earlier sessions are kept, and time continues after them.
        tensorboard: folder of the events.
        began_at: seconds since the epoch when this session began.

    Attributes:
        damage: of the metrics of earlier sessions; see `MetricsTable`.
    """

    def __init__(self, metrics: Path, tensorboard: Path, began_at: float) -> None:
        self._table = MetricsTable(metrics)
        self.damage = self._table.damage
        self._zero = began_at - self._table.end_s
        self._events = SummaryWriter(str(tensorboard))

    def time_s(self, moment: float) -> float:
        """Return the seconds since the run began at a moment in seconds since the epoch."""
        return moment - self._zero

    def point(
        self,
        moment: float,
        source: str,
        name: str,
        value: float,
        *,
        step: int,
        place: Place = NOWHERE,
        event_step: int | None = None,
    ) -> None:
        """Record a value at a moment.

        Args:
            step: distillation step, or update of the pixels for a loss term.
            event_step: its step in TensorBoard; default: `step`.
        """
        self._table.append((self.time_s(moment), None, source, name, place.round, step, place.batch, float(value)))
        self._events.add_scalar(name, value, step if event_step is None else event_step, moment)

    def span(self, start: float, seconds: float, source: str, name: str, place: Place = NOWHERE) -> None:
        """Record a span: what a source did, and its duration."""
        row = (self.time_s(start), seconds, source, f"span/{name}", place.round, None, place.batch, None)
        self._table.append(row)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the duration of a `with` block as a span of the driver."""
        start = time.time()
        try:
            yield
        finally:
            self.span(start, time.time() - start, "driver", name)

    def grid(self, name: str, images: np.ndarray, step: int, most: int = 40) -> None:
        """Record images uint8 [N,C,H,W] side by side for TensorBoard; the first channel if there are not 1 or 3."""
        from torchvision.utils import make_grid  # here, as it takes two seconds, in every process

        shown = images[:most] if images.shape[1] in (1, 3) else images[:most, :1]
        self._events.add_image(name, make_grid(torch.from_numpy(np.array(shown)), nrow=10, padding=1), step)

    def hyper_parameters(self, settings: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Record TensorBoard's HParams: the run's settings, nested or not, and the final figures that are floats."""
        flat = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in leaves(settings).items()
        }
        figures = {name: value for name, value in summary.items() if isinstance(value, float)}
        self._events.add_hparams(flat, figures, run_name=".")

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
        """Write the new rows to the disk; raises OSError."""
        self._table.flush()
        self._events.flush()

    def close(self) -> None:
        """Merge all rows into one metrics.parquet, and close the events; raises as `MetricsTable.merge`."""
        self._table.merge()
        self._events.close()


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
