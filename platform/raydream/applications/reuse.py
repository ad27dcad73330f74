"""Images that an earlier run has made already: found by their recipe, and shared instead of made again."""

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

    A batch of one recipe has the same id in all runs, as its seed follows from its place. So there is no need of an
    index: the shards of that name are looked at, and of these the description alone.

    Args:
        runs: the folder, in which runs lie at any depth; empty, or one that does not exist: there are none.
        own: the shards of the run that asks. In a store nothing is shared.
        teacher: fingerprint of the teacher whose images are looked for.
    """

    def __init__(self, runs: str, own: ShardStore, teacher: str) -> None:
        self._runs, self._own, self._teacher = runs, own, teacher

    def take(self, batch: BatchId, recipe: str) -> bool:
        """Commit a batch as another run's, where one of this recipe can be read to its last byte.

        Args:
            recipe: see `recipe.recipe_of`; of an empty one there is no other.

        Returns:
            whether it is committed by now.

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
        """Of all other runs that have images of the teacher, when first asked for."""
        places = [place / "images" for place in run_places(LocalFolder(Path(self._runs))) if self._is_of_teacher(place)]
        return [ShardStore(place) for place in places if place != self._own.folder]

    def _is_of_teacher(self, place: Folder) -> bool:
        return _marker(place).teacher == self._teacher


def note_reused(store: ShardStore, run: str, runs: str, note: Callable[[str], None]) -> dict[str, int]:
    """How many of a run's batches were made by others.

    Args:
        run: id of the run.
        runs: the folder in which the others may lie.
        note: is told, a sentence for each.

    Returns:
        batches by the id of the run that made them; empty where it made all of them itself.
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
