"""TensorBoard's events of a run: scalars, pictures, texts, charts and hyper-parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from raydream.interruption import signals_held


class TensorBoardSink:
    """Writes events into a folder, whose name is the run's name in TensorBoard.

    Each session of a run adds a file to the folder. Signals wait for the end of each call: the writer's queue is locked
    by Python code, and an exception at that moment would leave it locked, so that `close` never ended.

    Args:
        folder: of the events.
    """

    def __init__(self, folder: Path) -> None:
        self._events = SummaryWriter(str(folder))

    @signals_held()
    def scalar(self, tag: str, value: float, step: int, moment: float) -> None:
        """Write a value; see `Sink.scalar`."""
        self._events.add_scalar(tag, value, step, moment)

    @signals_held()
    def picture(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Write a picture, uint8 [H,W,3]."""
        self._events.add_image(tag, picture, step, dataformats="HWC")

    @signals_held()
    def charts(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Write the layout of Custom Scalars: tags, as regular expressions, by chart and category."""
        layout = {
            category: {title: ["Multiline", list(tags)] for title, tags in of.items()}
            for category, of in charts.items()
        }
        self._events.add_custom_scalars(layout)

    @signals_held()
    def text(self, tag: str, markdown: str) -> None:
        """Write a text, in Markdown."""
        self._events.add_text(tag, markdown, 0)

    @signals_held()
    def finish(self, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Write the session of HParams, which also is one point of each figure's scalar; see `Sink.finish`."""
        self._events.add_hparams(dict(settings), dict(figures), run_name=".")

    @signals_held()
    def flush(self) -> None:
        """Write everything to the disk."""
        self._events.flush()

    @signals_held()
    def close(self) -> None:
        """Write everything, and close the file."""
        self._events.close()
