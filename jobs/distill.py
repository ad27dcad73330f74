"""Invert a trained network into images and distil a student from them, in rounds, on Ray."""

import sys

from raydream.cli import Command, run_job
from raydream.config import DistillConfig


def _distill(command: Command[DistillConfig]) -> None:
    from raydream.jobs.distill import distill  # here: bad input is answered before torch and Ray are loaded

    distill(command)


if __name__ == "__main__":
    sys.exit(run_job(DistillConfig, __doc__, _distill))
