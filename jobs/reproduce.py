"""Make a table of the paper: all runs that it needs, in parallel on Ray, and the table beside the paper's figures."""

import sys

from raydream.cli import Command, run_job
from raydream.config import ReproduceConfig
from raydream.reproduction.scales import defaults_for


def _reproduce(command: Command[ReproduceConfig]) -> None:
    from raydream.jobs.reproduce import reproduce  # here: bad input is answered before torch and Ray are loaded

    reproduce(command)


if __name__ == "__main__":
    sys.exit(run_job(ReproduceConfig, __doc__, _reproduce, defaults_for))
