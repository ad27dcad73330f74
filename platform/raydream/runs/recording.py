"""What every run keeps while it goes on: its figures, and its journal."""

import contextlib
from collections.abc import Callable, Iterator

from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder
from raydream.runs.run_folder import RunFolder


@contextlib.contextmanager
def recording(folder: RunFolder, began_at: float, say: Callable[[str], None]) -> Iterator[tuple[Recorder, Journal]]:
    """The recorder and the journal of a run, which go on with those of its earlier sessions; closed at the end.

    Args:
        began_at: seconds since the epoch when this session began.
        say: where to show the journal's entries as well.

    Raises:
        OSError: see `Recorder.flush`.
    """
    recorder = Recorder(folder.metrics, folder.tensorboard, began_at)
    with contextlib.closing(recorder):
        journal = Journal(folder.journal, say)
        if recorder.damage:
            journal.note(recorder.damage)
        yield recorder, journal
