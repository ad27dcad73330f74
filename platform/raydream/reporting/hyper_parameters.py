"""The trials of a search for TensorBoard: a curve for each, and HParams beside its final figures."""

import contextlib
import shutil
import time
from pathlib import Path

from raydream.search.trials import Trials
from raydream.tracking.tensorboard_sink import TensorBoardSink


def write_hyper_parameters(events: Path, trials: Trials, metric: str) -> None:
    """Write the events of all trials, each in a separate folder; files of a killed session are replaced.

    Args:
        events: folder of the search's events.
        metric: the objective metric; also written as `score`, the higher the better.
    """
    for number, trial in trials.items():
        folder = events / f"trial-{number:04d}"
        if not trial.reports:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.closing(TensorBoardSink(folder)) as sink:
            for report, values in enumerate(trial.reports, 1):
                for name, value in values.items():
                    sink.scalar(f"trial/{name}", value, report, time.time())
            settings = {
                name: value if isinstance(value, bool | int | float | str) else str(value)
                for name, value in trial.point.items()
            }
            final = {f"summary/{name}": value for name, value in trial.reports[-1].items()}
            scores = trial.scores(metric)
            sink.finish(settings, final | ({"summary/score": scores[-1]} if scores else {}))
