"""The recorder: each thing measured goes into the run's metrics table and its TensorBoard events at once."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.tensorboard import SummaryWriter

from raydream.errors import ShardError, first_line
from raydream.store.atomic import patiently, set_aside, write_aside

COLUMNS = {
    "time_s": "float64",
    "duration_s": "float64",
    "source": "string",
    "name": "string",
    "round": "Int32",
    "step": "Int64",
    "batch": "string",
    "value": "float64",
}
"""of metrics.parquet, in long form: a row is a point (`value`) or a span (`duration_s`) of a named source, at
`time_s` seconds since the run began; a gap between two sessions of a resumed run does not count"""


@dataclass(frozen=True)
class Place:
    """What a row belongs to: a round, and a batch by its id; either may be left out."""

    round: int | None = None
    batch: str | None = None


NOWHERE = Place()


class Recorder:
    """Collects rows and writes events.

    Args:
        metrics: path of metrics.parquet; rows that are there already are kept, and time goes on after them.
        tensorboard: folder of the events.
        began_at: seconds since the epoch when this session began.

    Attributes:
        damage: what was wrong with the metrics that were there, which are set aside then; None if nothing was.
    """

    def __init__(self, metrics: Path, tensorboard: Path, began_at: float) -> None:
        self._path = metrics
        self._rows: list[tuple[Any, ...]] = []
        self._before_s = 0.0
        self.damage: str | None = None
        if metrics.exists():
            try:
                earlier = read_metrics(metrics)
            except ShardError as error:
                self.damage = f"{error}; they are kept as {set_aside(metrics).name}, and curves begin anew"
                earlier = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)
            self._rows = list(earlier.itertuples(index=False, name=None))
            if len(earlier):
                self._before_s = float((earlier["time_s"] + earlier["duration_s"].fillna(0.0)).max())
        self._zero = began_at - self._before_s
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
        self._rows.append((self.time_s(moment), None, source, name, place.round, step, place.batch, float(value)))
        self._events.add_scalar(name, value, step if event_step is None else event_step, moment)

    def span(self, start: float, seconds: float, source: str, name: str, place: Place = NOWHERE) -> None:
        """What a source did for so long."""
        row = (self.time_s(start), seconds, source, f"span/{name}", place.round, None, place.batch, None)
        self._rows.append(row)

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
            for key, value in flatten(settings).items()
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
        """All rows so far; see `COLUMNS`."""
        return pd.DataFrame(self._rows, columns=list(COLUMNS)).astype(COLUMNS)

    def flush(self) -> None:
        """Put all rows on the disk, aside and renamed; raises OSError."""
        table = self.table()
        write_aside(self._path, lambda aside: table.to_parquet(aside, index=False, write_page_checksum=True))
        self._events.flush()

    def close(self) -> None:
        """Flush, and close the events."""
        self.flush()
        self._events.close()


def read_metrics(path: Path) -> pd.DataFrame:
    """The rows of a metrics.parquet; see `COLUMNS`.

    Raises:
        ShardError: it is not there, damaged, or something else.
    """
    try:
        table = patiently(lambda: pq.read_table(path, page_checksum_verification=True))
        rows: pd.DataFrame = table.to_pandas()[list(COLUMNS)].astype(COLUMNS)
        return rows
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise ShardError(f"the metrics in {path} cannot be read: {first_line(error)}") from error


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings to one level, with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


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
