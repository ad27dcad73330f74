"""Train a student from scratch on a finished set of images, towards the teacher that they are of, on Ray."""

import sys

from raydream.cli import Command, run_job
from raydream.config import TransferConfig


def _transfer(command: Command[TransferConfig]) -> None:
    from raydream.jobs.transfer import transfer  # here: bad input is answered before torch and Ray are loaded

    transfer(command)


if __name__ == "__main__":
    sys.exit(run_job(TransferConfig, __doc__, _transfer))
