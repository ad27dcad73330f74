"""Make a trained network smaller by whole channels, with nothing but a finished set of images, on Ray."""

import sys

from raydream.cli import Command, run_job
from raydream.config import PruneConfig


def _prune(command: Command[PruneConfig]) -> None:
    from raydream.jobs.prune import prune  # here: bad input is answered before torch and Ray are loaded

    prune(command)


if __name__ == "__main__":
    sys.exit(run_job(PruneConfig, __doc__, _prune))
