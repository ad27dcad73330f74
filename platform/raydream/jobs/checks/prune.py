"""The checks before a pruning starts."""

from dataclasses import dataclass

from raydream.config import PruneConfig
from raydream.jobs.checks.images import CheckedInputs, check_additions, check_inputs
from raydream.pruning.checks import check_prunable


@dataclass(frozen=True)
class CheckedPruning(CheckedInputs):
    """The findings of a pruning's checks.

    Attributes:
        note: which layers keep all their channels; empty if all can lose some.
    """

    note: str


def check_pruning(config: PruneConfig) -> CheckedPruning:
    """Load and probe the teacher, and check that it can be pruned as configured, with these images.

    Raises:
        InputError: a checkpoint, a set of images or real data that do not fit, or a network that cannot lose channels
            or not as many.
    """
    inputs = check_inputs(config)
    check_additions(config, inputs)
    return CheckedPruning(**vars(inputs), note=check_prunable(inputs.network, config))
