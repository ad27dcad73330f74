"""Mid-batch resume: a generator keeps a checkpoint of its batch, from which the next one continues."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from raydream.config.runtime import CHECKPOINT_S
from raydream.errors import ShardError, first_line
from raydream.store.records import BatchId, Snapshot
from raydream.store.unfinished import Unfinished, UnfinishedBatches
from raydream.synthesis.checkpoint import Checkpoint, Record
from raydream.teachers.teacher import fingerprint

log = logging.getLogger(__name__)

MOST_SHARE = 0.01
"""largest share of a generator's time that checkpoints take: on slow storage they are written less often"""
STUDENT = "student."
"""prefix of the arrays of a checkpoint that are the weights of the student that the batch competes with"""


@dataclass(frozen=True)
class Checkpointing:
    """The way in which the makers of a run keep checkpoints of the batches in progress.

    Attributes:
        files: the checkpoints.
        every_s: seconds of work between two checkpoints of a batch.
        lockstep: whether a batch has to compete with the very snapshot that it is ordered with. Otherwise it continues
            with the one that it began with, though the student has meanwhile learned more.
    """

    files: UnfinishedBatches
    every_s: float = CHECKPOINT_S
    lockstep: bool = False


@dataclass(frozen=True)
class Resumed:
    """The beginning of a batch.

    Attributes:
        snapshot: the student that it competes with, or None.
        checkpoint: what another generator has done of it; None: nothing.
        recipe: of that part, see `recipe.recipe_of`.
        note: what became of a checkpoint, in a sentence; empty if there was none.
    """

    snapshot: Snapshot | None
    checkpoint: Checkpoint | None = None
    recipe: str = ""
    note: str = ""


class BatchInProgress:
    """Keeps and reads the checkpoint of one batch.

    Args:
        settings: of the run's makers.
        batch: its id.
        key: equal for all makers of this batch in its run, see `recipe.key_of`.
        clock: gives seconds.
    """

    def __init__(
        self,
        settings: Checkpointing,
        batch: BatchId,
        key: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._batch, self._key, self._clock = settings, batch, key, clock
        self._due = clock() + settings.every_s

    def resume(self, snapshot: Snapshot | None) -> Resumed:
        """Return where this batch begins: at its checkpoint, or at its first update.

        Args:
            snapshot: the student that it is ordered to compete with, or None. One that lies in the checkpoint takes its
                place, as a batch competes with one student from its first update to its last.
        """
        try:
            found = self._settings.files.read(self._batch)
            return Resumed(snapshot) if found is None else self._resumed(found, snapshot)
        except ShardError as error:
            return self.refused(snapshot, error)

    def refused(self, snapshot: Snapshot | None, error: ShardError) -> Resumed:
        """Return the beginning of a batch whose checkpoint cannot be used."""
        log.warning("%s", error)
        return Resumed(snapshot, note=f"{error}; the batch is made from its first update")

    def keep(self, copied: Callable[[], Checkpoint], snapshot: Snapshot | None, recipe: Callable[[], str]) -> None:
        """Write a checkpoint if one is due. A failure of storage is logged, and costs nothing but this checkpoint.

        Args:
            copied: copies the state of the batch.
            snapshot: the student that it competes with.
            recipe: returns the recipe of its updates so far.
        """
        began = self._clock()
        if began < self._due:
            return
        try:
            self._settings.files.write(self._batch, self._content(copied(), snapshot, recipe()))
        except OSError as error:
            log.warning("batch %s has no checkpoint at this update: %s", self._batch, first_line(error))
        ended = self._clock()
        self._due = ended + max(self._settings.every_s, (ended - began) / MOST_SHARE)

    def _content(self, checkpoint: Checkpoint, snapshot: Snapshot | None, recipe: str) -> Unfinished:
        arrays = {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
        if snapshot is not None:
            arrays |= {f"{STUDENT}{name}": np.asarray(value) for name, value in snapshot.state.items()}
        facts = {
            "key": self._key,
            "recipe": recipe,
            "student_step": None if snapshot is None else snapshot.step,
            "restarts": checkpoint.restarts,
            **asdict(checkpoint.record),
        }
        return Unfinished(arrays, facts)

    def _resumed(self, found: Unfinished, snapshot: Snapshot | None) -> Resumed:
        """Return the beginning that a checkpoint describes; raises ShardError if that is another batch's."""
        try:
            if found.facts["key"] != self._key:
                raise ShardError(f"the checkpoint of batch {self._batch} was written with other settings or networks")
            kept = _snapshot_in(found, snapshot, self._settings.lockstep)
            record = _record_in(found.facts)
            restarts, recipe = int(found.facts["restarts"]), str(found.facts["recipe"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ShardError(f"the checkpoint of batch {self._batch} is damaged ({first_line(error)})") from error
        own = {name: value for name, value in found.arrays.items() if not name.startswith(STUDENT)}
        tensors = {name: torch.from_numpy(value) for name, value in own.items()}
        note = f"the batch resumes after update {record.updates}, which another generator made before it ended"
        return Resumed(kept, Checkpoint(restarts, record, tensors), recipe, note)


def _record_in(facts: Mapping[str, Any]) -> Record:
    curve = {
        str(name): [(int(update), float(value)) for update, value in points] for name, points in facts["curve"].items()
    }
    return Record(int(facts["updates"]), curve, [float(value) for value in facts["distances"]])


def _snapshot_in(found: Unfinished, ordered: Snapshot | None, lockstep: bool) -> Snapshot | None:
    """Return the snapshot that a checkpoint competes with; raises ShardError if the batch may not."""
    step = found.facts["student_step"]
    if ordered is None or step is None:
        if (ordered is None) != (step is None):
            raise ShardError("the checkpoint competes with a student, or its batch does, and not both")
        return None
    state = {name.removeprefix(STUDENT): value for name, value in found.arrays.items() if name.startswith(STUDENT)}
    kept = Snapshot(int(step), state)
    if _shapes(kept) != _shapes(ordered):
        raise ShardError("the checkpoint competes with a student of another network")
    if lockstep and (kept.step != ordered.step or fingerprint(kept.state) != fingerprint(ordered.state)):
        raise ShardError(f"the checkpoint competes with the student of step {kept.step}, not {ordered.step}")
    return kept


def _shapes(snapshot: Snapshot) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    arrays = {name: np.asarray(value) for name, value in snapshot.state.items()}
    return {name: (value.shape, value.dtype) for name, value in arrays.items()}
