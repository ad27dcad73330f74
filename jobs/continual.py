"""Teach a trained network new classes while images inverted from it stand for the old ones, on Ray."""

import sys

from raydream.cli import Command, run_job
from raydream.config import ContinualConfig


def _learn(command: Command[ContinualConfig]) -> None:
    from raydream.jobs.extend import extend  # here: bad input is answered before torch and Ray are loaded

    extend(command)


if __name__ == "__main__":
    sys.exit(run_job(ContinualConfig, __doc__, _learn))
