"""One image batch of a run, from its order to its record: what every generator does, wherever it runs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raydream.config import SynthesisConfig
from raydream.records import ImageBatch, Order, Provenance, Snapshot
from raydream.synthesis import SYNTHESIZERS, OnProgress, Request, Synthesis
from raydream.teachers.teacher import Teacher, load_arrays


@dataclass(frozen=True)
class Made:
    """A finished batch.

    Attributes:
        batch: with its images on the CPU.
        curve: each loss term over the updates, as (update, value) pairs.
        notes: what did not go as asked, in sentences.
    """

    batch: ImageBatch
    curve: dict[str, list[tuple[int, float]]]
    notes: tuple[str, ...]


class BatchMaker:
    """Makes batches: the same pixels, targets and logits for an order, whoever makes it.

    Args:
        run: id of the run.
        teacher: on the device to compute on.
        config: of the synthesis.
        build_student: builds the student that snapshots are of; None where nobody competes.
        generator: index of this maker, for the record only.
    """

    def __init__(
        self,
        run: str,
        teacher: Teacher,
        config: SynthesisConfig,
        build_student: Callable[[], nn.Module] | None = None,
        generator: int = 0,
    ) -> None:
        self._run, self._teacher, self._config, self._generator = run, teacher, config, generator
        self._build_student = build_student
        self._synthesizer = SYNTHESIZERS[config.method](teacher, config)

    def make(
        self,
        order: Order,
        snapshot: Snapshot | None,
        source: ImageBatch | None,
        on_progress: OnProgress = lambda share: None,
    ) -> Made:
        """Make one batch.

        Args:
            snapshot: the student to compete with; not looked at by a method that does not compete.
            source: images to start from (their targets are kept), or None for noise.
            on_progress: see `Request`.

        Raises:
            SynthesisError: see `Inversion.synthesize`.
        """
        snapshot = snapshot if self._config.competes else None
        student = None
        if snapshot is not None and self._build_student is not None:
            student = self._build_student()
            load_arrays(student, snapshot.state)
            student = student.to(self._teacher.device)
        targets = order.targets if source is None else source.targets
        start = None if source is None else torch.from_numpy(np.array(source.images))
        request = Request(torch.from_numpy(np.array(targets)), order.seed, student, start, on_progress)
        made = self._synthesizer.synthesize(request)
        logits = self._teacher.logits(made.images).cpu().numpy()
        provenance = self._provenance(order, made, snapshot, source, float((logits.argmax(1) == targets).mean()))
        return Made(
            ImageBatch(made.images.cpu().numpy(), np.array(targets), logits, provenance), made.curve, made.notes
        )

    def _provenance(
        self, order: Order, made: Synthesis, snapshot: Snapshot | None, source: ImageBatch | None, target_share: float
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
        )
