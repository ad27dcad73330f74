"""The trials of a search for TensorBoard: a curve for each, and HParams beside its final figures."""

import shutil
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from raydream.search.trials import Trials


def write_hyper_parameters(tensorboard: Path, trials: Trials, metric: str) -> None:
    """Write the events of all trials, each in a separate folder; files of a killed session are replaced.

    Args:
        tensorboard: folder of the events.
        metric: the objective metric; also written as `score`, the higher the better.
    """
    for number, trial in trials.items():
        folder = tensorboard / f"trial-{number:04d}"
        if not trial.reports:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(str(folder)) as events:
            for report, values in enumerate(trial.reports, 1):
                for name, value in values.items():
                    events.add_scalar(f"trial/{name}", value, report)
            settings = {
                name: value if isinstance(value, bool | int | float | str) else str(value)
                for name, value in trial.point.items()
            }
            final = {f"final/{name}": value for name, value in trial.reports[-1].items()}
            scores = trial.scores(metric)
            events.add_hparams(settings, final | ({"final/score": scores[-1]} if scores else {}), run_name=".")
