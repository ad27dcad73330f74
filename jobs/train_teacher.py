"""Train a teacher on real data; `jobs/distill.py` with the same teacher, training and data finds it again."""

import sys

from raydream.cli import Command, run_job
from raydream.config import TeacherJobConfig


def _train(command: Command[TeacherJobConfig]) -> None:
    from raydream.jobs.train import train  # here: bad input is answered before torch is loaded

    train(command)


if __name__ == "__main__":
    sys.exit(run_job(TeacherJobConfig, __doc__, _train))
