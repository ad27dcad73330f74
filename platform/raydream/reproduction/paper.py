"""The paper's own figures, by the rows and columns of our tables."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from raydream.reproduction.tables import PAPER_ROWS

Figures = dict[str, dict[str, float]]
"""by row and column; where the paper has none there is no entry"""

OF_CONTINUAL = ("combined", "ImageNet", "CUB", "Flowers")
"""names of the four figures of each method in table 7"""


def paper_figures(table: int) -> Figures:
    """Return the rows of the paper's table: first those that ours shares, by our names, then the others by theirs.

    Args:
        table: 1 to 7. Accuracies are in percent, FLOPs in 10^9, latencies in ms, as printed.
    """
    theirs = {1: _students, 2: _verified, 3: _scores, 4: _pruned, 5: _compared, 6: _transferred, 7: _continual}[table]()
    names = PAPER_ROWS[table]
    known = {ours: theirs[name] for ours, name in names.items() if name in theirs}
    return known | {name: values for name, values in theirs.items() if name not in names.values()}


@cache
def _tables() -> dict[str, Any]:
    text = (files("raydream.reproduction") / "paper_tables.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables


def _there(columns: Any, values: Any) -> dict[str, float]:
    return {column: value for column, value in zip(columns, values, strict=True) if value is not None}


def _students() -> Figures:
    table = _tables()["table1_cifar10_knowledge_transfer"]
    columns, other = table["columns"], ("columns", "settings")
    return {name: _there(columns, values) for name, values in table.items() if name not in other}


def _verified() -> Figures:
    table = _tables()["table2_imagenet_cross_model_top1"]
    networks = {name: values for name, values in table.items() if name != "columns"}
    return {
        source: {name: values[index] for name, values in networks.items()}
        for index, source in enumerate(table["columns"])
    }


def _scores() -> Figures:
    table = _tables()["table3_inception_score"]
    figures: Figures = {}
    for name, score in table.items():
        low_high = score if isinstance(score, list) else [score]
        figures[name] = dict(zip(("Inception score", "(and up to)"), low_high, strict=False))
    return figures


def _pruned() -> Figures:
    table = _tables()["table4_pruning_resnet50_top1"]
    return {name: _there(table["columns"], values) for name, values in table.items() if name != "columns"}


def _compared() -> Figures:
    table = _tables()["table5_pruning_comparison"]
    return {name: _there(("GFLOPs", "latency (ms)", "top-1"), values) for name, values in table.items()}


def _transferred() -> Figures:
    table = _tables()["table6_knowledge_transfer_resnet50v15"]
    figures: Figures = {}
    for recipe in ("epochs_90", "epochs_250_mixup"):
        for name, value in table[recipe].items():
            figures.setdefault(name, {})[recipe] = value
    return {"teacher": {"epochs_90": table["teacher"]}, **figures}


def _continual() -> Figures:
    figures: Figures = {}
    for data, methods in _tables()["table7_continual_resnet18"].items():
        for name, values in methods.items():
            columns = [f"{data.replace('_', ' ')}: {each}" for each in OF_CONTINUAL]
            figures.setdefault(name, {}).update(_there(columns, values))
    return figures
