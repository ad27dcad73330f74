"""The schedule of a run: which batches are made in which round, and which step sees which round.

Round 0 makes the initial batches, without a student. Then the student trains `steps_per_round` steps on the available
images, and its snapshot competes in making round 1; and so on. After the last round's batches have joined come
the final steps. Everything here is decided from the configuration alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from raydream.config import DistillConfig, SynthesisConfig
from raydream.seeds import derive_seed
from raydream.store.records import BatchId, Order
from raydream.targets import choose_targets


@dataclass(frozen=True)
class Schedule:
    """The counts of a run, the same for all its processes.

    Attributes:
        initial_batches: batches of round 0.
        rounds: rounds after round 0.
        batches_per_round: batches of each.
        batch_images: images in a batch.
        steps_per_round: distillation steps before each round's batches join.
        final_steps: distillation steps after the last have joined.
        snapshot_steps: steps between two snapshots.
        draw: images drawn per distillation step, over all workers.
    """

    initial_batches: int
    rounds: int
    batches_per_round: int
    batch_images: int
    steps_per_round: int
    final_steps: int
    snapshot_steps: int
    draw: int

    @classmethod
    def of(cls, config: DistillConfig) -> "Schedule":
        """Derive a schedule; `steps_per_round` is images of a round x samples per insert / images per step."""
        made = config.rounds.batches * config.synthesis.batch_size
        steps = max(1, round(config.buffer.samples_per_insert * made / config.student.batch_size))
        return cls(
            initial_batches=config.rounds.initial_batches,
            rounds=config.rounds.count,
            batches_per_round=config.rounds.batches,
            batch_images=config.synthesis.batch_size,
            steps_per_round=steps,
            final_steps=config.rounds.final_steps,
            snapshot_steps=config.rounds.snapshot_steps or steps,
            draw=config.student.batch_size,
        )

    @property
    def total_steps(self) -> int:
        """Return the number of distillation steps of the whole run; every worker stops there."""
        return self.round_steps + self.final_steps

    @property
    def total_batches(self) -> int:
        """Return the number of image batches of the whole run."""
        return self.initial_batches + self.rounds * self.batches_per_round

    def batches_of(self, round_index: int) -> list[BatchId]:
        """Return a round's batches in order."""
        count = self.batches_per_round if round_index else self.initial_batches
        return [BatchId(round_index, index) for index in range(count)]

    def batch_ids(self) -> list[BatchId]:
        """Return all batches in order."""
        return [batch for round_index in range(self.rounds + 1) for batch in self.batches_of(round_index)]

    def position(self, batch: BatchId) -> int:
        """Return the number of batches before this one."""
        if batch.round == 0:
            return batch.index
        return self.initial_batches + (batch.round - 1) * self.batches_per_round + batch.index

    def batch_at(self, position: int) -> BatchId:
        """Return the batch at a position; the inverse of `position`."""
        if position < self.initial_batches:
            return BatchId(0, position)
        rounds, index = divmod(position - self.initial_batches, self.batches_per_round)
        return BatchId(rounds + 1, index)

    def batches_before_round(self, round_index: int) -> int:
        """Return the number of batches of all rounds before this one."""
        return self.position(BatchId(round_index, 0))

    def round_of_step(self, step: int) -> int:
        """Return the newest round whose batches a step may see; the final steps see all."""
        return min(step // self.steps_per_round, self.rounds)

    def block_end(self, first_step: int, block_steps: int) -> int:
        """Return the end of a block of steps that are drawn together; it never reaches beyond its round.

        In lockstep the next round's images come from a snapshot at this round's end, so a block across it would
        wait for itself.
        """
        round_end = (first_step // self.steps_per_round + 1) * self.steps_per_round
        return min(first_step + block_steps, round_end, self.total_steps)

    @property
    def round_steps(self) -> int:
        """Return the number of distillation steps before the final ones."""
        return self.rounds * self.steps_per_round

    def is_snapshot(self, steps_done: int) -> bool:
        """Return whether a snapshot is taken after a number of steps: every `snapshot_steps`, and at the end."""
        return steps_done % self.snapshot_steps == 0 or self.ends_round(steps_done)

    def ends_round(self, steps_done: int) -> bool:
        """Return whether a round's training ends after a number of steps: it is reported, evaluated and checkpointed.

        The final steps are divided into stretches as long as a round's, and their end counts too.
        """
        return steps_done % self.steps_per_round == 0 or steps_done == self.total_steps

    def order(self, batch: BatchId, config: DistillConfig) -> Order:
        """Return the order of a batch; targets continue from batch to batch."""
        first, count = self.position(batch) * self.batch_images, self.batch_images
        targets = choose_targets(config.synthesis.targets, config.teacher.classes, first, count, config.seed)
        seed = derive_seed(config.seed, "synthesis", batch.index, batch.round)
        return Order(batch, targets, seed, predecessor(self.batch_at, self.position(batch), config.synthesis))

    def source_of(self, batch: BatchId, config: DistillConfig) -> BatchId | None:
        """Return the initial batch whose images a competing batch starts from; None: it starts from noise."""
        if batch.round == 0 or config.synthesis.start == "noise" or not config.synthesis.competes:
            return None
        return BatchId(0, derive_seed(config.seed, "source", batch.index, batch.round) % self.initial_batches)


@dataclass(frozen=True)
class Epochs:
    """Passes over a finished set of images; each image comes once in a pass, in steps as even as they can be.

    Attributes:
        images: number in the set.
        batch_size: most images per step, over all workers.
        count: number of passes.
    """

    images: int
    batch_size: int
    count: int

    @property
    def steps(self) -> int:
        """Return the number of distillation steps of one pass."""
        return -(-self.images // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Return the number of distillation steps of all passes."""
        return self.count * self.steps


def predecessor(batch_at: Callable[[int], BatchId], position: int, config: SynthesisConfig) -> BatchId | None:
    """Return the batch whose learned state a batch starts from; None: it starts from scratch, or nothing is learned.

    A run of n chains has n generator networks that learn side by side, so it is the batch n places before.

    Args:
        batch_at: returns the batch of the run at a position.
        position: number of batches before the batch.
    """
    before = position - config.generator.chains
    return batch_at(before) if config.learns and before >= 0 else None


def even_sizes(images: int, parts: int) -> list[int]:
    """Return the sizes of a number of parts of some images; they differ by one at most."""
    return [images // parts + (index < images % parts) for index in range(parts)]
