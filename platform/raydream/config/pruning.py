"""How a network is pruned."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, NonNegative, NonNegativeInt


@dataclass(frozen=True, config=STRICT)
class PruningConfig:
    """Which channels go, how many, and how the network recovers."""

    criterion: Literal["taylor", "magnitude", "random"] = "taylor"
    """taylor: squared gradient times gate of the KL with the teacher (the paper); magnitude: norm of the weights that
    make a channel, relative to its layer's mean; random"""
    of: Literal["filters", "flops"] = "filters"
    """what `ratio` counts: channels that convolutions make, or multiplications and additions; then channels are ranked
    by importance per FLOP that goes with them"""
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """share of them that is removed (the paper's ImageNet ResNet-50: 0.2 of the filters)"""
    steps: Count = 10
    """in which they are removed, as much in each, with epochs of distillation after each"""
    batches: Count = 16
    """of student.batch_size images, over which importance is summed before each step"""
    least: Count = 2
    """channels that stay in each layer at least"""
    block: Count = 1
    """channels that go together; more where hardware computes channels by the block"""
    eta: NonNegative = 0.0
    """weight of latency in the importance (eq. 10): at 1, a share of the network's latency counts as much as the same
    share of all importance, and what makes nothing faster stays; 0: latency does not count"""
    latency_batch_size: Count = 1
    """images in a pass whose latency is measured"""
    latency_tables: str = "runs/latency"
    """folder where measured latencies of layers are kept, by device, versions and threads"""
    between_epochs: NonNegativeInt = 1
    """passes over all images after each step, at a constant learning rate"""
    epochs: NonNegativeInt = 30
    """passes over all images after the last step (the paper: 30)"""


@dataclass(frozen=True, config=STRICT)
class AdditionsConfig:
    """Rounds in which images are added that compete with the pruned network (the paper: two rounds of about 25,000)."""

    rounds: NonNegativeInt = 0
    """rounds after the last step's epochs"""
    batches: Count = 4
    """of synthesis.batch_size images, made per round against the pruned network as it is then"""
    epochs: Count = 10
    """passes over all images after each round"""
