"""Runs as pandas frames, for notebooks and scripts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from raydream.config.tree import leaves
from raydream.runs import run_folder
from raydream.runs.metrics_table import COLUMNS, has_metrics, read_metrics
from raydream.runs.run_list import ListedRun, read_run

SETTING = "config."
"""prefix of the columns that are settings, some of which share their name with a final figure"""


def runs_frame(runs: Sequence[str | Path]) -> pd.DataFrame:
    """Return a frame with a row for each run.

    Args:
        runs: their folders, or URLs.

    Returns:
        columns `run` (the folder), `job`, `state` (done, unfinished, running or damaged), `date` (its start, UTC),
        `teacher` (fingerprint), `method`, the settings in which the runs differ (`config.` and their dotted name), and
        the final figures that are numbers, by their name in summary.json; nested ones have dotted names.

    Raises:
        InputError: one of them is no run.
    """
    found = [read_run(run, "RUN") for run in runs]
    settings = differences([run.config for run in found])
    rows = []
    for index, (given, run) in enumerate(zip(runs, found, strict=True)):
        row: dict[str, Any] = {"run": str(given), "job": run.job, "state": run.state}
        row |= {"date": pd.Timestamp(run.begun, unit="s", tz="UTC"), "teacher": run.teacher, "method": method_of(run)}
        row |= {f"{SETTING}{name}": values[index] for name, values in settings.items()}
        rows.append(row | final_figures(run))
    return pd.DataFrame(rows)


def metrics_frame(runs: Sequence[str | Path]) -> pd.DataFrame:
    """Return the runs' metrics in long form: `run` (the folder), and `metrics_table.COLUMNS`.

    Args:
        runs: their folders, or URLs; those that have no metrics have no row.

    Raises:
        InputError: one of them is no run.
        ShardError: the metrics of one cannot be read.
    """
    tables = [pd.DataFrame(columns=["run", *COLUMNS]).astype(COLUMNS)]
    for run in runs:
        metrics = run_folder.resume(str(run), "RUN")[0].metrics
        if has_metrics(metrics):
            tables.append(read_metrics(metrics).assign(run=str(run))[["run", *COLUMNS]])
    return pd.concat(tables[1:], ignore_index=True) if len(tables) > 1 else tables[0]


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings, by dotted name, that differ among configurations, and their values in each."""
    flat = [leaves(config) for config in configs]
    names = dict.fromkeys(name for each in flat for name in each)
    values = {name: [each.get(name) for each in flat] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def method_of(run: ListedRun) -> str:
    """Return the name of the synthesizer; empty if the run has none."""
    synthesis = run.config.get("synthesis")
    return str(synthesis.get("method", "")) if isinstance(synthesis, Mapping) else ""


def final_figures(run: ListedRun) -> dict[str, float]:
    """Return the numbers in a run's summary, by dotted name."""
    figures = leaves(run.summary or {})
    return {name: value for name, value in figures.items() if type(value) in (int, float)}
