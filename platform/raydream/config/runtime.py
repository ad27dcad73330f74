"""The processes of a run, and what ties them together."""

from typing import Literal

from pydantic.dataclasses import dataclass

from raydream.config.fields import STRICT, Count, Name, NonNegative, NonNegativeInt, Positive, reserved
from raydream.errors import InputError


@dataclass(frozen=True, config=STRICT)
class GeneratorsConfig:
    """The actors that run the synthesizer."""

    count: Count | Literal["auto"] = "auto"
    """generator actors that are wanted; those for which there is no room yet join later; auto: where they reserve GPUs
    of this machine, as many as there is room for beside the student; on CPUs, or on a cluster that is joined, 2"""
    min: Count = 1
    """how few of them are enough to begin"""
    cpus: Positive = 0.5
    """CPUs that each reserves; it computes with max(1, cpus) threads"""
    gpus: NonNegative = 0.0
    """GPUs that each reserves; fractions share one"""
    node_resource: Name | None = None
    """a custom resource of Ray's that nodes for generators offer (spot ones, say); null: any node"""
    patience_s: Positive = 600.0
    """seconds without any progress of a batch (an update, or compiling) after which its generator is taken for hung
    and replaced"""

    def __post_init__(self) -> None:
        if self.count != "auto" and self.min > self.count:
            allowed = f"at most generators.count ({self.count})"
            raise InputError("generators.min", self.min, allowed, "lower it, or ask for more generators")

    @property
    def number(self) -> int:
        """Generators that are wanted; of auto, what it is where nothing is known of GPUs."""
        return max(2, self.min) if self.count == "auto" else self.count

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for each generator."""
        return reserved(self.cpus, self.gpus, self.node_resource)


@dataclass(frozen=True, config=STRICT)
class BufferConfig:
    """What ties making images to learning from them."""

    samples_per_insert: Positive = 50.0
    """how often an image is drawn, on average, for each that joins (the paper: 50 steps of 256 per 256 made)"""
    error_bound: Positive | None = None
    """samples by which drawing may run ahead of or behind that ratio; null: one round's worth (ignored in lockstep)"""
    block_steps: Count = 5
    """distillation steps whose images a worker asks for in one call"""
    memory_mb: Positive | None = None
    """images kept in Ray's object store, in MiB; of the rest the shards are read; null: half of the smallest node's"""
    stall_timeout_s: Positive = 1800.0
    """seconds without any new image or snapshot after which a wait gives up"""


@dataclass(frozen=True, config=STRICT)
class RoundsConfig:
    """Rounds: the student trains on the buffer, generators make batches against its snapshot, the batches join."""

    initial_batches: Count = 4
    """batches made before the student starts (DeepInversion where the method is adaptive)"""
    count: NonNegativeInt = 4
    """rounds after that"""
    batches: Count = 2
    """batches made per round"""
    final_steps: NonNegativeInt = 500
    """distillation steps after the last batch has joined"""
    snapshot_steps: Count | None = None
    """steps between two snapshots of the student; null: one a round"""
    lockstep: bool = False
    """alternate strictly between making and learning: reproducible bit for bit, and slower"""

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
