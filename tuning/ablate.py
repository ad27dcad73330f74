"""Switch the terms of an experiment's objective on and off, in all combinations, over several seeds."""

import sys

from raydream.cli import Command, run_job
from raydream.config import AblateConfig


def _ablate(command: Command[AblateConfig]) -> None:
    from raydream.jobs.ablate import ablate  # here: bad input is answered before torch and Ray are loaded

    ablate(command)


if __name__ == "__main__":
    sys.exit(run_job(AblateConfig, __doc__, _ablate))
