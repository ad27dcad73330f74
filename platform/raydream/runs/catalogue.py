"""The job of a run, by its marker or, in version 0.1, by its settings; and the job's main figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raydream.errors import DocumentError
from raydream.runs.summaries import SUMMARIES
from raydream.runs.summary import Figure, read


@dataclass(frozen=True)
class Signs:
    """Settings that identify the job of a version 0.1 run, whose run.json names none.

    Attributes:
        settings: names that the jobs after it in `SIGNS` do not all have.
    """

    job: str
    settings: frozenset[str]


SIGNS = (
    Signs("search", frozenset({"space"})),
    Signs("ablate", frozenset({"rounds", "seeds", "trial"})),
    Signs("reproduce", frozenset({"table", "scale"})),
    Signs("extend", frozenset({"methods", "steps"})),
    Signs("prune", frozenset({"pruning"})),
    Signs("transfer", frozenset({"epochs", "feed"})),
    Signs("distill", frozenset({"rounds", "buffer"})),
    Signs("synthesize", frozenset({"synthesis", "png"})),
    Signs("evaluate", frozenset({"images", "verifiers"})),
    Signs("train", frozenset({"teacher", "training"})),
)


def job_of(config: Mapping[str, Any], noted: str = "") -> str | None:
    """Return the job that began a run.

    Args:
        config: its settings.
        noted: the job in run.json; empty in version 0.1.

    Returns:
        a name of `SUMMARIES`; None if the job is unknown.
    """
    if noted:
        return noted if noted in SUMMARIES else None
    return next((signs.job for signs in SIGNS if signs.settings <= config.keys()), None)


def main_figure(job: str | None, summary: Mapping[str, Any] | None) -> Figure | None:
    """Return the main figure of a run's job; None: the run is not done, or had no data to measure it on.

    Args:
        job: as `job_of` returns it.
        summary: as it stands in the file.
    """
    if job is None or summary is None:
        return None
    try:
        return read(SUMMARIES[job], summary).main
    except (DocumentError, LookupError, TypeError, ValueError):
        return None
