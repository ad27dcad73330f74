"""The recorder: each thing measured goes into the run's metrics table and its TensorBoard events at once."""

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
    """What a row belongs to: a round, and a batch by its id; either may be left out."""

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
        damage: what was wrong with the metrics of earlier sessions; see `MetricsTable`.
    """

    def __init__(self, metrics: Path, tensorboard: Path, began_at: float) -> None:
        self._table = MetricsTable(metrics)
        self.damage = self._table.damage
        self._zero = began_at - self._table.end_s
        self._events = SummaryWriter(str(tensorboard))

    def time_s(self, moment: float) -> float:
        """Seconds since the run began, of a moment in seconds since the epoch."""
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
        """A value at a moment.

        Args:
            step: distillation step, or update of the pixels for a loss term.
            event_step: where it is drawn in TensorBoard; default: `step`.
        """
        self._table.append((self.time_s(moment), None, source, name, place.round, step, place.batch, float(value)))
        self._events.add_scalar(name, value, step if event_step is None else event_step, moment)

    def span(self, start: float, seconds: float, source: str, name: str, place: Place = NOWHERE) -> None:
        """What a source did for so long."""
        row = (self.time_s(start), seconds, source, f"span/{name}", place.round, None, place.batch, None)
        self._table.append(row)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The length of a `with` block as a span of the driver."""
        start = time.time()
        try:
            yield
        finally:
            self.span(start, time.time() - start, "driver", name)

    def grid(self, name: str, images: np.ndarray, step: int, most: int = 40) -> None:
        """Images uint8 [N,C,H,W] side by side for TensorBoard; of other channel counts than 1 and 3, the first."""
        from torchvision.utils import make_grid  # here, as it takes two seconds, which each process would pay

        shown = images[:most] if images.shape[1] in (1, 3) else images[:most, :1]
        self._events.add_image(name, make_grid(torch.from_numpy(np.array(shown)), nrow=10, padding=1), step)

    def hyper_parameters(self, settings: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """TensorBoard's HParams: the run's settings, nested or not, beside those final figures that are floats."""
        flat = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in leaves(settings).items()
        }
        figures = {name: value for name, value in summary.items() if isinstance(value, float)}
        self._events.add_hparams(flat, figures, run_name=".")

    def latest(self, name: str) -> dict[int, float]:
        """The last value of a name at each step, earlier sessions of the run included."""
        table = self.table()
        rows = table[table["name"] == name]
        return {int(step): float(value) for step, value in zip(rows["step"], rows["value"], strict=True)}

    def seconds_by_stage(self) -> dict[str, float]:
        """Seconds of each of the driver's stages, in their order, earlier sessions of the run included."""
        table = self.table()
        spans = table[table["name"].str.startswith("span/")]
        stages = spans[spans["source"] == "driver"].groupby("name", sort=False)["duration_s"].sum()
        return {str(name).removeprefix("span/"): float(seconds) for name, seconds in stages.items()}

    def table(self) -> pd.DataFrame:
        """All rows so far; see `COLUMNS`. Raises ShardError as `MetricsTable.frame`."""
        return self._table.frame()

    def flush(self) -> None:
        """Put the rows that are new on the disk; raises OSError."""
        self._table.flush()
        self._events.flush()

    def close(self) -> None:
        """Make one metrics.parquet of all rows, and close the events; raises as `MetricsTable.merge`."""
        self._table.merge()
        self._events.close()


def union_length(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds covered by at least one of the spans (start, end)."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def overlap_share(metrics: pd.DataFrame) -> float:
    """Share in [0, 1] of the student's training time during which at least one generator was making images.

    Args:
        metrics: rows of `COLUMNS`, with the spans "span/train" and "span/make".
    """

    def spans(name: str) -> list[tuple[float, float]]:
        rows = metrics[metrics["name"] == name]
        return list(zip(rows["time_s"], rows["time_s"] + rows["duration_s"], strict=True))

    train, make = spans("span/train"), spans("span/make")
    both = union_length(train) + union_length(make) - union_length(train + make)
    return both / union_length(train) if train else 0.0
