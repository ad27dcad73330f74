"""Invert a trained network into a Parquet data set of images, with parallel generators on Ray."""

import sys

from raydream.cli import Command, run_job
from raydream.config import SynthesizeConfig


def _synthesize(command: Command[SynthesizeConfig]) -> None:
    from raydream.jobs.synthesize import synthesize  # here: bad input is answered before torch and Ray are loaded

    synthesize(command)


if __name__ == "__main__":
    sys.exit(run_job(SynthesizeConfig, __doc__, _synthesize))
