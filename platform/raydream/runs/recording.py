"""The records that every run keeps while in progress: its figures and its journal."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder
from raydream.runs.run_folder import RunFolder
from raydream.tracking.sinks import Tracked, open_trackers


@contextlib.contextmanager
def recording(
    folder: RunFolder, began_at: float, say: Callable[[str], None], experiment: str = "", trackers: Sequence[str] = ()
) -> Iterator[tuple[Recorder, Journal]]:
    """Open the recorder and the journal of a run, which continue those of its earlier sessions; close them at the end.

    Args:
        began_at: seconds since the epoch when this session began.
        say: called with each entry of the journal, to show it.
        experiment: name of the run's experiment, for the trackers.
        trackers: names of the trackers that its curves are sent to beside TensorBoard.

    Raises:
        OSError: see `Recorder.flush`.
        RaydreamError: a tracker cannot be opened.
    """
    journal = Journal(folder.journal, say)
    sinks = open_trackers(trackers, Tracked(folder.run, experiment, folder.path), journal.note)
    with contextlib.closing(Recorder(folder.metrics, folder.events, began_at, sinks)) as recorder:
        if recorder.damage:
            journal.note(recorder.damage)
        yield recorder, journal
