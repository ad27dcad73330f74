"""Settings of a run's processes and their coupling."""

from typing import Literal

from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, Name, NonNegative, NonNegativeInt, Positive, reserved
from raydream.errors import InputError

CHECKPOINT_S = 300.0
"""seconds between two checkpoints of a batch in progress"""


@dataclass(frozen=True, config=STRICT)
class GeneratorsConfig:
    """The actors that run the synthesizer."""

    count: Count | Literal["auto"] = "auto"
    """number of generator actors; those without free resources join later; auto: where they reserve GPUs of this
    machine, all that fit beside the student; on CPUs, or on a joined cluster, 2"""
    min: Count = 1
    """smallest number of generators to start with"""
    cpus: Positive = 0.5
    """CPUs that each reserves; it computes with max(1, cpus) threads"""
    gpus: NonNegative = 0.0
    """GPUs that each reserves; fractions share one"""
    node_resource: Name | None = None
    """custom Ray resource of the nodes for generators (spot nodes, say); null: any node"""
    patience_s: Positive = 600.0
    """seconds without any progress of a batch (an update, or compiling) after which its generator is considered hung
    and replaced"""
    checkpoint_s: Positive = CHECKPOINT_S
    """seconds of work on a batch after which it leaves a checkpoint, from which the batch is resumed if its generator
    dies"""

    def __post_init__(self) -> None:
        if self.count != "auto" and self.min > self.count:
            allowed = f"at most generators.count ({self.count})"
            raise InputError("generators.min", self.min, allowed, "lower it, or ask for more generators")

    @property
    def number(self) -> int:
        """The number of wanted generators; for auto, the number without known GPUs."""
        return max(2, self.min) if self.count == "auto" else self.count

    @property
    def resources(self) -> dict[str, float]:
        """The resources that Ray reserves for each generator."""
        return reserved(self.cpus, self.gpus, self.node_resource)


@dataclass(frozen=True, config=STRICT)
class WorkersConfig:
    """The processes that train a teacher."""

    count: Count = 1
    """1: this process, without Ray, with all CPUs and a GPU if there is one; more: as many Ray Train workers (DDP),
    each with its share of a batch, and BN statistics of its own share"""
    cpus: Positive = 1.0
    """CPUs that each of several workers reserves; it computes with max(1, cpus) threads"""
    gpus: NonNegative = 0.0
    """GPUs that each of several workers reserves; fractions share one"""

    @property
    def workers(self) -> int:
        """The number of workers."""
        return self.count

    @property
    def worker_counts(self) -> list[int]:
        """The allowed numbers of workers: all of them."""
        return [self.count]

    @property
    def resources(self) -> dict[str, float]:
        """The resources that Ray reserves for each worker."""
        return reserved(self.cpus, self.gpus, None)


@dataclass(frozen=True, config=STRICT)
class BufferConfig:
    """The buffer between generators and student."""

    samples_per_insert: Positive = 50.0
    """average number of draws per image that joins (the paper: 50 steps of 256 per 256 made)"""
    error_bound: Positive | None = None
    """samples by which drawing may run ahead of or behind that ratio; null: one round's worth (ignored in lockstep)"""
    block_steps: Count = 5
    """number of distillation steps whose images a worker requests in one call"""
    memory_mb: Positive | None = None
    """size of the images kept in Ray's object store, in MiB; the rest is read from shards; null: half of the smallest
    node's store"""
    stall_timeout_s: Positive = 1800.0
    """seconds without any new image or snapshot after which a wait gives up"""


@dataclass(frozen=True, config=STRICT)
class RoundsConfig:
    """Rounds: the student trains on the buffer, generators make batches against its snapshot, the batches join."""

    initial_batches: Count = 4
    """number of batches made before the student starts (DeepInversion where the method is adaptive)"""
    count: NonNegativeInt = 4
    """number of rounds after that"""
    batches: Count = 2
    """number of batches made per round"""
    final_steps: NonNegativeInt = 500
    """distillation steps after the last batch has joined"""
    snapshot_steps: Count | None = None
    """steps between two snapshots of the student; null: one a round"""
    lockstep: bool = False
    """alternate strictly between making images and learning: reproducible bit for bit, and slower"""

    def __post_init__(self) -> None:
        if self.count == 0 and self.final_steps == 0:
            raise InputError(
                "rounds.final_steps", 0, ">= 1 where rounds.count is 0", "give the student steps to learn in"
            )
        if self.lockstep and self.snapshot_steps is not None:
            raise InputError(
                "rounds.snapshot_steps",
                self.snapshot_steps,
                "null in lockstep, where every round ends with one snapshot",
                "leave it out, or set rounds.lockstep to false",
            )
