"""Records of trials, written to the search's folder as they come, and their summaries."""

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from raydream.search.metrics import MEASURES, score_of
from raydream.search.space import Point
from raydream.store.folders import Folder
from raydream.store.json_lines import append_line, read_lines


def images_of(place: Folder, trial: int) -> Folder:
    """Return the folder of a trial's shards, in a search's folder."""
    return place / "trials" / f"{trial:04d}"


Status = Literal["running", "done", "stopped", "failed"]


@dataclass
class Trial:
    """The record of one trial.

    Attributes:
        point: the values of the searched settings.
        reports: metrics of each report, by name; besides the metrics: step (distillation steps),
            images, updates (of pixels, all batches together: the generators' work) and seconds, each since the trial
            began; work repeated after an interruption is not counted.
        moments: time of each report, in seconds since the epoch.
        status: running: begun and not ended; done: completed; stopped: by the scheduler.
        reason: the reason of a failure.
    """

    point: Point
    reports: list[dict[str, float]] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    status: Status = "running"
    reason: str | None = None

    def scores(self, metric: str) -> list[float]:
        """Return the score at each report, the higher the better; none for a failed trial."""
        return [] if self.status == "failed" else [score_of(metric, values) for values in self.reports]


class Trials:
    """The trials of a search by their number, kept in a file of JSON lines.

    The file is the only record: a search resumes from it, whatever else is lost.

    Args:
        path: path of the file, which is read if it exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trials: dict[int, Trial] = {}
        for line in read_lines(path):
            with contextlib.suppress(KeyError, TypeError):  # a damaged line: its trial is run from what else is known
                self._take(line)

    def __getitem__(self, trial: int) -> Trial:
        return self._trials[trial]

    def __contains__(self, trial: int) -> bool:
        return trial in self._trials

    def items(self) -> list[tuple[int, Trial]]:
        """Return all trials that have begun, by number."""
        return sorted(self._trials.items())

    def begin(self, trial: int, point: Point) -> None:
        """Record the values of a trial that begins; a known one stays unchanged."""
        if trial not in self._trials:
            self._write({"event": "begun", "trial": trial, "point": point})

    def report(self, trial: int, report: int, values: dict[str, float]) -> None:
        """Record the metrics of a report, counted from 0; a known one, or one of an ended trial, stays unchanged.

        Args:
            values: metrics, and `seconds` since the previous report of any session.
        """
        known = self._trials[trial]
        if report == len(known.reports) and known.status == "running":
            before = known.reports[-1]["seconds"] if known.reports else 0.0
            values = {**values, "seconds": before + values["seconds"]}
            self._write({"event": "report", "trial": trial, "values": values})

    def end(self, trial: int, status: Status, reason: str | None = None) -> None:
        """Record the end of a trial; only the first record counts."""
        if self._trials[trial].status == "running":
            self._write({"event": "ended", "trial": trial, "status": status, "reason": reason})

    def count(self, status: Status) -> int:
        """Return the number of trials with a status."""
        return sum(trial.status == status for trial in self._trials.values())

    def best(self, metric: str) -> int | None:
        """Return the completed trial with the best last score; the first of equals."""
        ended = [(trial.scores(metric)[-1], -number) for number, trial in self.items() if trial.status == "done"]
        return -max(ended)[1] if ended else None

    def progress(self, metric: str) -> pd.DataFrame:
        """Return a row for each ended trial, in order of ending.

        Columns: ended (number so far), trial, best (the best score of an ended trial so far), and updates and seconds
        that all trials together had taken by then.
        """
        rows: list[dict[str, float]] = []
        ended = [(trial.moments[-1], number, trial) for number, trial in self.items() if trial.scores(metric)]
        for moment, number, trial in sorted(ended, key=lambda each: each[:2]):
            if trial.status == "running":
                continue
            best = max([trial.scores(metric)[-1], *(row["best"] for row in rows[-1:])])
            spent = {name: self._spent(name, moment) for name in ("updates", "seconds")}
            rows.append({"ended": len(rows) + 1, "trial": number, "best": best, **spent})
        return pd.DataFrame(rows)

    def _spent(self, name: str, moment: float) -> float:
        """Sum the work of all trials until a moment."""
        until = (sum(each <= moment for each in trial.moments) for trial in self._trials.values())
        each = zip(self._trials.values(), until, strict=True)
        return sum(trial.reports[count - 1][name] for trial, count in each if count)

    def measures(self) -> list[str]:
        """Return the names of the metrics that were recorded for any trial."""
        noted = {name for trial in self._trials.values() for values in trial.reports for name in values}
        return [name for name in MEASURES if name in noted]

    def table(self, metric: str) -> pd.DataFrame:
        """Return a row per report.

        Columns: trial, status, reason, report (from 1; 0 for a trial without any), `last` (whether it is the trial's
        last), score, the metrics, and each searched setting by its dotted name.
        """
        rows: list[dict[str, Any]] = []
        for number, trial in self.items():
            scores: list[float | None] = [*trial.scores(metric)] or [None] * max(1, len(trial.reports))
            head = {"trial": number, "status": trial.status, "reason": trial.reason}
            last = max(1, len(trial.reports))
            for report, (values, score) in enumerate(zip(trial.reports or [{}], scores, strict=True), 1):
                place = {"report": report if trial.reports else 0, "last": report == last, "score": score}
                rows.append(head | place | values | trial.point)
        return pd.DataFrame(rows)

    def _write(self, line: dict[str, Any]) -> None:
        line["moment"] = time.time()
        append_line(self._path, line)
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        number = line["trial"]
        if line["event"] == "begun":
            self._trials.setdefault(number, Trial(line["point"]))
        elif line["event"] == "report":
            self._trials[number].moments.append(line["moment"])
            self._trials[number].reports.append(line["values"])
        else:
            self._trials[number].status, self._trials[number].reason = line["status"], line["reason"]
