"""The job that switches the terms of an experiment's objective on and off.

It selects nothing, so students are measured on the test split.
"""

from typing import Any

import pandas as pd

from raydream.cli import Command
from raydream.config import AblateConfig
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.search import CheckedTrials, check_trials, run_all, spent, trials_of
from raydream.reporting.search_report import write_ablation_report
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import AblateSummary
from raydream.search.ablation import ablation_table, search_of
from raydream.search.metrics import metric_of
from raydream.store.atomic import write_atomically


def ablate(command: Command[AblateConfig]) -> AblateSummary:
    """Run all combinations of terms, or resume; see `carry_out`."""
    return carry_out(JOB, command)


def _check(config: AblateConfig, resumed: RunFolder | None, say: Say) -> tuple[AblateConfig, CheckedTrials]:
    return config, check_trials(search_of(config), resumed, say, split="test", chooses=False)


def _make(run: JobRun[AblateConfig], checked: CheckedTrials) -> AblateSummary:
    trials, metric = run_all(run, checked), metric_of(checked.config)
    counted, table = spent(checked.config, trials), ablation_table(run.config, trials, metric)
    write_atomically(run.folder.path / "ablation.parquet", lambda temporary: table.to_parquet(temporary, index=False))
    split = "test" if metric == "accuracy" else None
    return AblateSummary(**counted, split=split, seeds=run.config.seeds, rows=_plain(table))


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _report(folder: RunFolder, config: AblateConfig, summary: AblateSummary) -> None:
    write_ablation_report(folder, search_of(config), trials_of(folder), summary)


def _rows(summary: AblateSummary) -> dict[str, str]:
    metric, rows = summary.metric, {}
    for row in summary.rows:
        terms = [name for name, on in row.items() if on is True]
        spread = row[f"{metric}_spread"]
        mean = f"{row[f'{metric}_mean']:.4g}" + (f" ± {spread:.2g}" if spread is not None else "")
        rows[" + ".join(["class loss", *terms])] = f"{mean} (seeds: {row['seeds']})"
    return {metric: f"{summary.metric_is}; mean ± standard deviation"} | rows


JOB = Job(
    name="ablate",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"table": "ablation.parquet", "report": "ablation.html"},
    figures=None,
)
