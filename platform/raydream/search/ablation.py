"""The ablation: each term of an experiment's objective on and off, in all combinations, over several seeds."""

from dataclasses import fields
from typing import Any

import pandas as pd

from raydream.config import AblateConfig, DistillConfig, SearchConfig
from raydream.errors import InputError
from raydream.search.trials import Trials

COEFFICIENTS = "synthesis.coefficients."


def search_of(config: AblateConfig) -> SearchConfig:
    """Describe an ablation as a grid of trials at the experiment's own scale.

    Raises:
        InputError: the experiment has no term to switch off.
    """
    terms = ablated_terms(config)
    if not terms:
        remedy = "raise a coefficient, or name another method"
        raise InputError("synthesis.method", config.synthesis.method, "one with terms beside the class loss", remedy)
    on = {name: float(getattr(config.synthesis.coefficients, name)) for name in terms}
    grid: dict[str, Any] = {f"{COEFFICIENTS}{name}": {"grid": [0.0, value]} for name, value in on.items()}
    grid["seed"] = {"grid": list(range(config.seed, config.seed + config.seeds))}
    own = {field.name: getattr(config, field.name) for field in fields(DistillConfig)}
    return SearchConfig(
        **own, space={"search": grid}, searcher="grid", scheduler="none", verifiers=config.verifiers, trial=config.trial
    )


def ablated_terms(config: DistillConfig) -> list[str]:
    """Return the objective's terms except the class loss, without which images show no class."""
    coefficients = config.synthesis.coefficients
    class_losses = ("classification", "one_hot")
    return [name for name in config.synthesis.terms if name not in class_losses and getattr(coefficients, name) > 0]


def ablation_table(config: AblateConfig, trials: Trials, metric: str) -> pd.DataFrame:
    """Return a row per combination: whether each term is on (by name), seeds (completed ones), and mean and
    spread (standard deviation over seeds; nan for one) of each metric.

    Args:
        metric: the metric that rows are sorted by, the best first.
    """
    table, terms = trials.table(metric), ablated_terms(config)
    done = table[table["last"] & (table["status"] == "done")]
    measured = [name for name in trials.measures() if name in done]
    rows = []
    for _, same in done.groupby([f"{COEFFICIENTS}{name}" for name in terms], sort=False):
        row: dict[str, Any] = {name: bool(same[f"{COEFFICIENTS}{name}"].iloc[0] > 0) for name in terms}
        row |= {"seeds": len(same), "score": same["score"].mean()}
        for name in measured:
            row |= {f"{name}_mean": same[name].mean(), f"{name}_spread": same[name].std()}
        rows.append(row)
    return (
        pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable", ignore_index=True).drop(columns="score")
    )
