"""Settings of pruning."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, NonNegative, NonNegativeInt


@dataclass(frozen=True, config=STRICT)
class PruningConfig:
    """The channels to remove, their number, and the recovery of the network."""

    criterion: Literal["taylor", "magnitude", "random"] = "taylor"
    """taylor: squared gradient times gate of the KL with the teacher (the paper); magnitude: norm of the weights that
    make a channel, relative to its layer's mean; random"""
    of: Literal["filters", "flops"] = "filters"
    """unit of `ratio`: output channels of convolutions, or multiplications and additions; the latter ranks channels by
    importance per FLOP that they save"""
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """share of them to remove (the paper's ImageNet ResNet-50: 0.2 of the filters)"""
    steps: Count = 10
    """number of equal steps in which they are removed, with epochs of distillation after each"""
    batches: Count = 16
    """number of batches of student.batch_size images over which importance is summed before each step"""
    least: Count = 2
    """fewest channels that stay in each layer"""
    block: Count = 1
    """number of channels removed together; more than 1 where hardware computes channels in blocks"""
    eta: NonNegative = 0.0
    """weight of latency in the importance (eq. 10): at 1, a share of the network's latency counts as much as the same
    share of all importance, and channels whose removal saves no time stay; 0: latency does not count"""
    latency_batch_size: Count = 1
    """number of images in a pass whose latency is measured"""
    latency_tables: str = "runs/latency"
    """folder for measured latencies of layers, by device, versions and threads"""
    between_epochs: NonNegativeInt = 1
    """passes over all images after each step, at a constant learning rate"""
    epochs: NonNegativeInt = 30
    """passes over all images after the last step (the paper: 30)"""


@dataclass(frozen=True, config=STRICT)
class AdditionsConfig:
    """Rounds in which images are added that compete with the pruned network (the paper: two rounds of about 25,000)."""

    rounds: NonNegativeInt = 0
    """number of rounds after the last step's epochs"""
    batches: Count = 4
    """number of batches of synthesis.batch_size images, made per round against the current pruned network"""
    epochs: Count = 10
    """passes over all images after each round"""
