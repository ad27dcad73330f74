"""Search the settings of an experiment with Ray Tune, for those with which its student learns best."""

import sys

from raydream.cli import Command, run_job
from raydream.config import SearchConfig


def _search(command: Command[SearchConfig]) -> None:
    from raydream.jobs.search import search  # here: bad input is answered before torch and Ray are loaded

    search(command)


if __name__ == "__main__":
    sys.exit(run_job(SearchConfig, __doc__, _search))
