"""The job that switches the terms of an experiment's objective on and off."""

from functools import partial
from typing import Any

import pandas as pd

from raydream.cli import Command
from raydream.config import AblateConfig, SearchConfig
from raydream.jobs.search import Job, carry_out, spent
from raydream.reporting.search_report import write_ablation_report
from raydream.runs.run_folder import RunFolder
from raydream.search.ablation import ablation_table, search_of
from raydream.search.metrics import metric_of
from raydream.search.trials import Trials
from raydream.store.atomic import write_aside


def ablate(command: Command[AblateConfig]) -> dict[str, Any]:
    """Run all combinations, or those that are missing; see `carry_out`.

    Nothing is chosen, so students are measured on the test split.
    """
    summarise = partial(_summarise, command.config)
    return carry_out(command, search_of(command.config), Job("test", False, summarise, write_ablation_report, _rows))


def _summarise(ablation: AblateConfig, config: SearchConfig, folder: RunFolder, trials: Trials) -> dict[str, Any]:
    counted = spent(config, trials)
    table = ablation_table(ablation, trials, metric_of(config))
    write_aside(folder.path / "ablation.parquet", lambda aside: table.to_parquet(aside, index=False))
    split = "test" if metric_of(config) == "accuracy" else None
    return counted | {"split": split, "seeds": ablation.seeds, "rows": _plain(table)}


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _rows(summary: dict[str, Any], folder: RunFolder) -> dict[str, str]:
    metric, rows = summary["metric"], {}
    for row in summary["rows"]:
        terms = [name for name, on in row.items() if on is True]
        spread = row[f"{metric}_spread"]
        told = f"{row[f'{metric}_mean']:.4g}" + (f" ± {spread:.2g}" if spread is not None else "")
        rows[" + ".join(["class loss", *terms])] = f"{told} ({row['seeds']} seeds)"
    return {metric: f"{summary['metric_is']}; mean ± standard deviation"} | rows
