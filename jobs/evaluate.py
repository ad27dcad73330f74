"""Let other networks classify the images of a run: do they see the targets, too? (Table 2 of the paper)"""

import sys

from raydream.cli import Command, run_job
from raydream.config import EvaluateConfig


def _evaluate(command: Command[EvaluateConfig]) -> None:
    from raydream.jobs.evaluate import evaluate  # here: bad input is answered before torch is loaded

    evaluate(command)


if __name__ == "__main__":
    sys.exit(run_job(EvaluateConfig, __doc__, _evaluate))
