"""Reuse of images from earlier runs: found by their recipe, and shared instead of made again."""

import logging
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from raydream.errors import DocumentError, ShardError
from raydream.runs.run_folder import Marker, read_marker
from raydream.runs.run_list import run_places
from raydream.store.folders import Folder, LocalFolder
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore

log = logging.getLogger(__name__)


class EarlierImages:
    """The batches of runs in a folder of this machine.

    A batch of one recipe has the same id in all runs, as its position determines its seed. So no index is needed: only
    the descriptions of shards of that name are read.

    Args:
        runs: the folder, with runs at any depth; may be empty or missing.
        own: the shards of the present run. In a store nothing is shared.
        teacher: fingerprint of the teacher whose images are wanted.
    """

    def __init__(self, runs: str, own: ShardStore, teacher: str) -> None:
        self._runs, self._own, self._teacher = runs, own, teacher

    def take(self, batch: BatchId, recipe: str) -> bool:
        """Commit another run's batch of this recipe, where one can be read to its last byte.

        Args:
            recipe: see `recipe.recipe_of`; an empty one matches nothing.

        Returns:
            whether the batch is committed.

        Raises:
            DiskFullError, OSError: see `ShardStore.share`.
        """
        if not recipe or not self._runs or not isinstance(self._own.folder, LocalFolder):
            return False
        for store in self._stores:
            if self._has(store, batch, recipe):
                # The next batch is likely to lie beside this one.
                self._stores.remove(store)
                self._stores.insert(0, store)
                self._own.share(store, batch)
                return True
        return False

    def _has(self, store: ShardStore, batch: BatchId, recipe: str) -> bool:
        try:
            return (
                store.has(batch)
                and store.provenance(batch).recipe == recipe
                and store.read(batch).provenance.recipe == recipe
            )
        except (ShardError, OSError) as error:
            log.warning("batch %s of another run is not used again: %s", batch, error)
            return False

    @cached_property
    def _stores(self) -> list[ShardStore]:
        """Find, at first use, the shards of all other runs that have images of the teacher."""
        places = [place / "images" for place in run_places(LocalFolder(Path(self._runs))) if self._is_of_teacher(place)]
        return [ShardStore(place) for place in places if place != self._own.folder]

    def _is_of_teacher(self, place: Folder) -> bool:
        return _marker(place).teacher == self._teacher


def note_reused(store: ShardStore, run: str, runs: str, note: Callable[[str], None]) -> dict[str, int]:
    """Count the batches of a run that other runs made, and note them.

    Args:
        run: the run's id.
        runs: the folder that may hold the other runs.
        note: called with a sentence for each.

    Returns:
        batches by the id of the run that made them; empty if it made all of them itself.
    """
    made = (store.provenance(batch) for batch in store.committed())
    counts = Counter(each.run for each in made if each.recipe)  # without one, a batch is never shared
    del counts[run]
    if counts and runs:
        where = {_marker(place).run: place for place in run_places(LocalFolder(Path(runs)))}
        for other, count in counts.items():
            lies = f" in {where[other]}" if other in where else ""
            note(f"{count} batches were not made again, as run {other}{lies} had made them")
    return dict(counts)


def _marker(place: Folder) -> Marker:
    try:
        return read_marker(place)
    except (OSError, DocumentError):
        return Marker("")
