"""The records that every run keeps while in progress: its figures and its journal."""

import contextlib
from collections.abc import Callable, Iterator

from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder
from raydream.runs.run_folder import RunFolder


@contextlib.contextmanager
def recording(folder: RunFolder, began_at: float, say: Callable[[str], None]) -> Iterator[tuple[Recorder, Journal]]:
    """Open the recorder and the journal of a run, which continue those of its earlier sessions; close them at the end.

    Args:
        began_at: seconds since the epoch when this session began.
        say: called with each entry of the journal, to show it.

    Raises:
        OSError: see `Recorder.flush`.
    """
    recorder = Recorder(folder.metrics, folder.tensorboard, began_at)
    with contextlib.closing(recorder):
        journal = Journal(folder.journal, say)
        if recorder.damage:
            journal.note(recorder.damage)
        yield recorder, journal
