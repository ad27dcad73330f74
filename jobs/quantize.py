"""Have a trained network compute with few bits, with nothing but a finished set of images, on Ray."""

import sys

from raydream.cli import Command, run_job
from raydream.config import QuantizeConfig


def _quantize(command: Command[QuantizeConfig]) -> None:
    from raydream.jobs.quantize import quantize  # here: bad input is answered before torch and Ray are loaded

    quantize(command)


if __name__ == "__main__":
    sys.exit(run_job(QuantizeConfig, __doc__, _quantize))
