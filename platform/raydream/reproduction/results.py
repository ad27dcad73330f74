"""Results of a table's cells, stored by content, and their summary as a table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

import pandas as pd

from raydream.evaluation.intervals import summarize
from raydream.reproduction.cells import Filled
from raydream.reproduction.paper import paper_figures
from raydream.reproduction.tables import Cell
from raydream.store.documents import read_json
from raydream.store.folders import Folder

HEADLINES = {
    1: "student_accuracy",
    2: "",
    3: "inception_score",
    4: "accuracy",
    5: "accuracy",
    6: "student_accuracy",
    7: "accuracy_average",
}
"""the main figure of a table; table 2 has one for each network"""
FACTS = ("images", "updates", "steps", "measured_on")
NUMBERS = ("inception_score", "frechet_distance", "feature_distance", "flops", "latency_ms")
"""figures that are not shares"""


class CellResults:
    """The store of completed cells.

    Args:
        folder: the folder, which need not exist.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def write(self, key: str, cell: Cell, filled: Filled) -> None:
        """Write a cell's results, whole or not at all; raises OSError."""
        entry = {"cell": str(cell), "table": cell.table, **asdict(filled)}
        self._folder.write(f"{key}.json", json.dumps(entry).encode())

    def read(self, key: str) -> Filled | None:
        """Read the results of a key; None where they are missing or damaged."""
        try:
            entry = read_json(self._folder, f"{key}.json")
            return Filled(**{name: entry[name] for name in Filled.__dataclass_fields__})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name, column: row and column of its cells.
        figures: figures by name: `mean`, `spread` (half of the 95 % interval; None of one seed) and `seeds`.
        facts: `FACTS`, of its first cell; None where it has none of its own.
        paper: the paper's corresponding figures, by the paper's columns.
    """

    name: str
    column: str
    figures: dict[str, dict[str, Any]]
    facts: dict[str, Any] | None
    paper: dict[str, float]


def rows_of(filled: Sequence[tuple[Cell, Filled]], table: int) -> list[Row]:
    """Return the lines of a table in the order of its cells, then those that only the paper has.

    Args:
        filled: completed cells, at least one.
        table: number of the paper's table.
    """
    theirs, rows = paper_figures(table), []
    for name, column in dict.fromkeys((cell.row, cell.column) for cell, _ in filled):
        same = [each for cell, each in filled if (cell.row, cell.column) == (name, column)]
        figures = {figure: summed([each.figures[figure] for each in same]) for figure in same[0].figures}
        rows.append(Row(name, column, figures, same[0].facts, _of_column(theirs.get(name, {}), column)))
    known = {row.name for row in rows}
    return rows + [Row(name, "", {}, None, values) for name, values in theirs.items() if name not in known]


def summed(values: list[float]) -> dict[str, Any]:
    """Return mean, spread (half of the 95 % interval; None of one value) and number of some values."""
    summary = summarize(values)
    return {
        "mean": summary["mean"],
        "spread": None if isnan(summary["interval"]) else summary["interval"],
        "seeds": len(values),
    }


def _of_column(theirs: dict[str, float], column: str) -> dict[str, float]:
    """Return the paper's figures for a column of ours, where it has similar columns (table 4: minus_50pct_filters)."""
    share = column.strip("−").partition("%")[0]
    same = {name: value for name, value in theirs.items() if name == f"minus_{share}pct_filters"}
    return same if column else theirs


def in_summary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return figures by name, row (and column) for summary.json: {figure: {row: {mean, spread, seeds}}}."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        for figure, values in row.figures.items():
            found.setdefault(figure, {})[" ".join(part for part in (row.name, row.column) if part)] = values
    return found


def as_frame(rows: Sequence[Row], table: int) -> pd.DataFrame:
    """Return a row per figure, ours and the paper's (source: run, paper)."""
    return pd.DataFrame(_lines(rows, table))


def _lines(rows: Sequence[Row], table: int) -> Iterator[dict[str, Any]]:
    for row in rows:
        place: dict[str, Any] = {"table": table, "row": row.name, "column": row.column}
        facts = row.facts or {}
        for name, values in row.figures.items():
            yield place | {"source": "run", "figure": name, **values} | {each: facts.get(each) for each in FACTS}
        for name, value in row.paper.items():
            yield place | {"source": "paper", "figure": name, "mean": float(value)}


def shown_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table as text: column names first; our figures, then the paper's, then the cost of ours."""
    figures = list(dict.fromkeys(figure for row in rows for figure in row.figures))
    papers = list(dict.fromkeys(column for row in rows for column in row.paper))
    head = ["", *map(_plain, figures), *(f"paper: {_plain(column)}" for column in papers)]
    table = [[*head, "seeds", "images", "updates a batch", "distillation steps"]]
    for row in rows:
        cells = [" ".join(part for part in (_plain(row.name), row.column) if part)]
        cells += [shown(figure, row.figures.get(figure)) for figure in figures]
        cells += [_number(row.paper.get(column)) for column in papers]
        seeds = next(iter(row.figures.values()))["seeds"] if row.figures else None
        facts = row.facts or {}
        cells += [_number(each) for each in (seeds, facts.get("images"), facts.get("updates"), facts.get("steps"))]
        table.append(cells)
    return table


def shown(figure: str, values: Mapping[str, Any] | None) -> str:
    """Format a figure: shares in percent, all with their spread."""
    if values is None:
        return ""
    scale, unit, digits = (1.0, "", ".3g") if figure in NUMBERS else (100.0, " %", ".1f")
    if figure == "flops":
        scale, unit = 1e-6, " million"
    mean, spread = values["mean"], values["spread"]
    if spread is not None and spread < 1e-9 * abs(mean):
        spread = 0.0  # of equal figures, but for rounding
    between = "" if spread is None else f" ± {scale * spread:{digits if scale != 1 else '.2g'}}"
    return f"{scale * mean:{digits}}{between}{unit}"


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """Format a table of text as Markdown."""
    head, *lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|" + " --- |" * len(table[0]), *lines])


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,g}"
