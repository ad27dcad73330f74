"""Writes a table's files beside its summary: table.md, table.parquet and report.html, all of the same figures."""

from collections.abc import Sequence

import numpy as np

from raydream.config import ReproduceConfig
from raydream.reporting.charts import Table, best_rows
from raydream.reporting.page import Page, Section, page_of_run, write_page
from raydream.reproduction.cells import Filled
from raydream.reproduction.figures import learning_curves, method_grid, projections
from raydream.reproduction.results import (
    Row,
    as_frame,
    as_markdown,
    shown,
    shown_table,
)
from raydream.reproduction.tables import Cell
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import ReproduceSummary
from raydream.store.atomic import write_atomically

TITLES = {
    1: "Students by method",
    2: "Images as other networks see them",
    3: "Quality and diversity of images",
    4: "Pruning by images",
    5: "Pruning by method",
    6: "A student from scratch by images",
    7: "New classes by method",
}
SPREAD = "Mean ± half of the 95 % interval over seeds (Student's t). The paper's figures are its own, of its own data."
WITH_REAL = ("teacher", "real", "oracle")
"""beginnings of names of rows that saw real images"""
NOTES = {
    1: "Last is the student at its last step, best the one that validation images would have chosen. The paper has "
    "CIFAR-10 and one run.",
    2: "Share of images that each network names as their target; of real test images, as their label. The paper's "
    "images are of an ImageNet ResNet-50.",
    3: "The Inception score is exp of the mean KL divergence of class probabilities from their mean, here of the "
    "network named below instead of Inception-v3, so that no figure can be compared with the paper's. The Fréchet "
    "distance, precision, recall and feature distance are of the same network's features, beside real test images; "
    "the row `real` is real validation images beside them. All rows are of equally many images.",
    4: "Best is chosen by validation images within the last epochs. The paper has ImageNet and a ResNet-50; its rows "
    "of other real images and of a GAN have no counterpart where none are named by --sources.",
    5: "Latency is of one image, measured in turn with the teacher while other cells may run beside: its ratio is "
    "worth more than its milliseconds. The paper has ImageNet, a ResNet-50 and a GPU.",
    6: "Best is chosen by validation images. The paper has ImageNet and a ResNet-50 v1.5.",
    7: "Average is the mean over groups of classes, as the paper's `combined` is over data sets. Figures are of the "
    "last epoch. Oracles learn from real images of old classes, which the others never see.",
}


def write_table(
    folder: RunFolder,
    config: ReproduceConfig,
    rows: Sequence[Row],
    filled: Sequence[tuple[Cell, Filled]],
    summary: ReproduceSummary,
) -> None:
    """Write table.md, table.parquet and report.html; raises OSError.

    Args:
        rows: the table's rows.
        filled: the completed cells.
        summary: the final figures.
    """
    table, note = shown_table(rows), _note(config)
    text = f"# Table {config.table}: {TITLES[config.table]} ({config.scale})\n\n{as_markdown(table)}\n\n"
    text += f"{note}\n\n" + "\n".join(f"- {name}: {value}" for name, value in _facts(config, summary)) + "\n"
    write_atomically(folder.path / "table.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    frame = as_frame(rows, config.table)
    write_atomically(folder.path / "table.parquet", lambda temporary: frame.to_parquet(temporary, index=False))
    write_page(folder.report, _page(folder, config, rows, filled, summary))


def _note(config: ReproduceConfig) -> str:
    verifiers = [each if isinstance(each, str) else f"{each.network} {each.arguments}" for each in config.verifiers]
    of = f" The network is {verifiers[0]}." if config.table == 3 else ""
    return f"{SPREAD} {NOTES[config.table]}{of}"


def _facts(config: ReproduceConfig, summary: ReproduceSummary) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    return [
        ("data", f"{summary.data}, measured on {summary.measured_on}"),
        ("teacher", f"{summary.teacher}, fingerprint {summary.teacher_fingerprint}"),
        ("seeds", f"{config.seed} to {config.seed + config.seeds - 1}"),
        ("machine", str(summary.machine)),
        ("versions", versions),
        ("date", summary.date),
        ("time", f"{summary.wall_s:,.0f} s in all; {summary.cell_seconds:,.0f} s of all cells together"),
    ]


def _page(
    folder: RunFolder,
    config: ReproduceConfig,
    rows: Sequence[Row],
    filled: Sequence[tuple[Cell, Filled]],
    summary: ReproduceSummary,
) -> Page:
    figure = summary.headline
    tiles = [
        (f"{row.name} {row.column}".strip(), shown(figure, row.figures[figure]), figure.replace("_", " "))
        for row in rows
        if figure in row.figures
    ]
    first = {cell.row: each for cell, each in reversed(filled) if cell.seed == config.seed}
    first = {cell.row: first[cell.row] for cell, _ in filled if cell.row in first}
    images = {name: np.array(each.examples, np.uint8) for name, each in first.items() if each.examples}
    columns = {cell.row: cell.column for cell, _ in reversed(filled)}
    curves: dict[str, list[list[dict[str, float]]]] = {}
    for cell, each in filled:
        if each.curve and cell.column == columns[cell.row]:
            curves.setdefault(cell.row, []).append(each.curve)
    plane = {name: np.array(each.projected) for name, each in first.items() if each.projected}
    return page_of_run(
        folder,
        f"Table {config.table}: {TITLES[config.table]} ({config.scale})",
        summary,
        accuracies=tiles,
        facts=_facts(config, summary),
        sections=[
            Section("Beside the paper", _note(config), [], _table(rows, figure)),
            Section(
                "Images by method",
                f"One of each class (up to ten) of the batch that was made last, as stored; none was picked. Seed "
                f"{config.seed}. The paper's Figure 3 has CIFAR-10's like this.",
                [method_grid(images)] if images else [],
            ),
            Section(
                "While students learn",
                "Mean of seeds, and a band from the lowest to the highest. The paper's Figure 4 has the accuracy on "
                "generated and on real images.",
                [learning_curves(curves)],
            ),
            Section(
                "Features in two dimensions",
                f"The first two principal components of real test images' features. Seed {config.seed}.",
                [projections(plane)],
            ),
        ],
    )


def _table(rows: Sequence[Row], figure: str) -> Table:
    """Return the table with its best row by the main figure marked; rows of real images do not compete."""
    head, *lines = shown_table(rows)
    means = [
        None if row.name.startswith(WITH_REAL) or figure not in row.figures else row.figures[figure]["mean"]
        for row in rows
    ]
    return Table(["method", *head[1:]], lines, best_rows(means))
