"""One image batch of a run, from its order to its record: what every generator does, on any machine."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from raydream.compute import repeats_bits
from raydream.config import SynthesisConfig
from raydream.errors import ShardError
from raydream.store.learned import LearnedState, LearnedStates
from raydream.store.records import ImageBatch, Order, Provenance, Snapshot
from raydream.synthesis import SYNTHESIZERS, OnProgress, Request, Synthesis
from raydream.synthesis.recipe import key_of, recipe_of
from raydream.synthesis.resuming import BatchInProgress, Checkpointing, Resumed
from raydream.teachers.teacher import Teacher, load_arrays


@dataclass(frozen=True)
class Made:
    """A finished batch.

    Attributes:
        batch: the batch, with its images on the CPU.
        curve: each loss term over the updates, as (update, value) pairs.
        notes: deviations from the request, one sentence each.
    """

    batch: ImageBatch
    curve: dict[str, list[tuple[int, float]]]
    notes: tuple[str, ...]


class BatchMaker:
    """Makes batches: any maker gives the same pixels, targets and logits for an order.

    Args:
        run: the run's id.
        teacher: on the device to compute on.
        config: the synthesis configuration.
        build_student: builds the student whose snapshots are loaded; None without competition.
        generator: index of this maker, for the record only.
        states: storage of the state learned from batch to batch; None: in memory, for a maker of all batches.
        checkpointing: of batches in progress; None: a batch that is not finished is lost. The caller deletes a batch's
            checkpoint when its shard is committed.
        batches: number of batches in the whole run, see `Synthesizer`.
    """

    def __init__(
        self,
        run: str,
        teacher: Teacher,
        config: SynthesisConfig,
        build_student: Callable[[], nn.Module] | None = None,
        generator: int = 0,
        states: LearnedStates | None = None,
        batches: int = 1,
        checkpointing: Checkpointing | None = None,
    ) -> None:
        self._checkpointing = checkpointing
        self._run, self._teacher, self._config, self._generator = run, teacher, config, generator
        self._build_student = build_student
        self._synthesizer = SYNTHESIZERS[config.method](teacher, config, batches)
        self._states = states or LearnedStates.of(None, config.generator.chains)

    def make(
        self,
        order: Order,
        snapshot: Snapshot | None,
        source: ImageBatch | None,
        on_progress: OnProgress = lambda share: None,
    ) -> Made:
        """Make one batch, and commit the state learned with it.

        Args:
            snapshot: the student to compete with; ignored by a method without competition.
            source: images to start from (their targets are kept), or None for noise.
            on_progress: see `Request`.

        Raises:
            SynthesisError: see `Synthesizer.synthesize`.
            OSError: see `LearnedStates.commit`.
        """
        snapshot = snapshot if self._config.competes else None
        learned = self._states.before(order.after) if self._config.learns else LearnedState({})
        self._synthesizer.load_state_dict(
            {name: torch.from_numpy(np.array(value)) for name, value in learned.state.items()}
        )
        targets = order.targets if source is None else source.targets
        start = None if source is None else torch.from_numpy(np.array(source.images))
        request = Request(torch.from_numpy(np.array(targets)), order.seed, None, start, on_progress)
        recipe = self.recipe(order, snapshot, source)
        made, begun = self._synthesized(request, order, snapshot, source, learned)
        if self._config.learns:
            state = self._synthesizer.state_dict()
            self._states.commit(order.batch, {name: value.cpu().numpy() for name, value in state.items()})
        if made.targets is not None:
            targets = made.targets.numpy()
        logits = self._synthesizer.engine.logits(made.images).cpu().numpy()
        provenance = self._provenance(
            order, made, begun.snapshot, source, learned, float((logits.argmax(1) == targets).mean())
        )
        # Where memory or the compiler gave way meanwhile, or a checkpoint came from another machine, a part was made in
        # one way and the rest in another.
        if recipe == self.recipe(order, snapshot, source) and (begun.checkpoint is None or begun.recipe == recipe):
            provenance = replace(provenance, recipe=recipe)
        own = (begun.note, *made.notes, *self._synthesizer.engine.take_notes(), learned.note)
        notes = tuple(note for note in own if note)
        return Made(ImageBatch(made.images.cpu().numpy(), np.array(targets), logits, provenance), made.curve, notes)

    def _synthesized(
        self,
        request: Request,
        order: Order,
        snapshot: Snapshot | None,
        source: ImageBatch | None,
        learned: LearnedState,
    ) -> tuple[Synthesis, Resumed]:
        """Make a batch from its checkpoint, if there is one, and keep checkpoints of it; returns how it began, too."""
        if self._checkpointing is None:
            student = self._student(snapshot)
            return self._synthesizer.synthesize(replace(request, student=student)), Resumed(snapshot)
        key = key_of(self._run, self._teacher, self._config, order, source, learned)
        progress = BatchInProgress(self._checkpointing, order.batch, key)
        begun = progress.resume(snapshot)
        first = self.recipe(order, snapshot, source) if begun.checkpoint is None else begun.recipe

        def recipe_so_far() -> str:
            return first if first == self.recipe(order, snapshot, source) else ""

        def synthesize() -> Synthesis:
            return self._synthesizer.synthesize(
                replace(
                    request,
                    student=self._student(begun.snapshot),
                    checkpoint=begun.checkpoint,
                    on_update=lambda copied: progress.keep(copied, begun.snapshot, recipe_so_far),
                )
            )

        try:
            return synthesize(), begun
        except ShardError as error:
            begun = progress.refused(snapshot, error)
            return synthesize(), begun

    def _student(self, snapshot: Snapshot | None) -> nn.Module | None:
        if snapshot is None or self._build_student is None:
            return None
        student = self._build_student()
        load_arrays(student, snapshot.state)
        return student.to(self._teacher.device)

    def recipe(self, order: Order, snapshot: Snapshot | None, source: ImageBatch | None) -> str:
        """Return the recipe of all batches that equal, to the bit, what `make` would produce here.

        Returns:
            see `recipe_of`; empty where the batch also depends on a student or on state learned with other batches, or
            where the device does not compute the same bits twice.
        """
        if (
            not repeats_bits(self._teacher.device)
            or self._config.learns
            or (self._config.competes and snapshot is not None)
        ):
            return ""
        return recipe_of(self._teacher, self._config, order, source, self._synthesizer.engine.way())

    def _provenance(
        self,
        order: Order,
        made: Synthesis,
        snapshot: Snapshot | None,
        source: ImageBatch | None,
        learned: LearnedState,
        target_share: float,
    ) -> Provenance:
        return Provenance(
            run=self._run,
            batch=str(order.batch),
            generator=self._generator,
            seed=order.seed,
            method=self._config.method,
            teacher=self._teacher.fingerprint,
            student_step=None if snapshot is None else snapshot.step,
            source=None if source is None else str(source.id),
            restarts=made.restarts,
            coefficients={name: float(getattr(self._config.coefficients, name)) for name in made.losses},
            losses=made.losses,
            distances=made.distances,
            target_share=target_share,
            after=None if learned.after is None else str(learned.after),
        )
