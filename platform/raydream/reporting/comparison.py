"""Comparison of runs: one self-contained page of their differences, results and images."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from raydream.errors import InputError, ShardError
from raydream.reporting.figures import WIDE, dress, fitting, grid_batches, labeled_grid, panel_grid
from raydream.reporting.page import Page, Picture, Section, grid_picture, pictures, write_page
from raydream.runs import run_folder
from raydream.runs.frames import differences, final_figures, method_of, metrics_frame
from raydream.runs.run_list import ListedRun, read_run
from raydream.runs.summary import shown_figure
from raydream.store.folders import folder_at
from raydream.store.records import ImageBatch
from raydream.terminal import printable

CURVES = {
    "accuracy/test": "accuracy, real test images",
    "accuracy/validation": "accuracy, real validation images",
    "accuracy/synthetic": "accuracy, newest synthetic images",
    "student/loss": "distillation loss (eq. 1)",
    "student/agreement": "agreement with the teacher",
    "pruning/filters": "filters",
    "teacher/loss": "teacher's loss",
}
"""metrics drawn over steps, beside the courses of class-incremental learning"""
COURSE = r"^(\w+)-\d+/accuracy/all$"
"""name of a course's accuracy over all classes, by its method and seed"""


def write_comparison(runs: Sequence[str], path: Path) -> Path:
    """Write a page that compares runs, completed or not; unreadable parts are left out and named.

    Args:
        runs: their folders, or URLs.
        path: path of the page.

    Returns:
        the path.

    Raises:
        InputError: one of them is not a run, or is named twice.
        OSError: the page cannot be written.
    """
    listed = [read_run(run, "RUN") for run in runs]
    names = [printable(name) for name in short_names(runs)]
    damage = {name: run.damage for name, run in zip(names, listed, strict=True) if run.damage}
    metrics, grids = _metrics(names, runs, damage), _grids(names, runs, damage)
    tiles = [
        (name, shown_figure(run.figure.name, run.figure.value), run.figure.name.replace("_", " "))
        if run.figure
        else (name, "–", f"no main figure: it is {run.state}")
        for name, run in zip(names, listed, strict=True)
    ]
    page = Page(
        title="Runs beside each other",
        run=", ".join(names),
        accuracies=tiles,
        sections=[
            Section("Final figures", _FIGURES, [], _figure_rows(names, listed)),
            Section("Settings that differ", _SETTINGS, [], _setting_rows(names, listed)),
            Section("Curves over each other", _OVER_STEPS, pictures((partial(curves, metrics, names), _CURVES))),
            Section("Loss terms over each other", _TERMS, pictures((partial(loss_terms, metrics, names), _LOSSES))),
            Section("Pictures side by side", _PICTURES, grids),
            Section("Left out", _LEFT_OUT, [], [["run", "reason"], *map(list, damage.items())] if damage else None),
        ],
    )
    return write_page(path, page)


def short_names(runs: Sequence[str]) -> list[str]:
    """Return the shortest distinct ends of paths; raises InputError where one is named twice."""
    places = [str(folder_at(run, "RUN")) for run in runs]
    for at, (run, place) in enumerate(zip(runs, places, strict=True)):
        if place in places[:at]:
            raise InputError("RUN", run, "each run once", "leave out what is named twice")
    parts = [str(run).rstrip("/").split("/") for run in runs]
    counts = range(1, max(map(len, parts)) + 1)
    named = (["/".join(each[-count:]) for each in parts] for count in counts)
    return next(names for names in named if len({*names}) == len(names))


# --- tables -----------------------------------------------------------------------------------------------------


def _figure_rows(names: Sequence[str], runs: Sequence[ListedRun]) -> list[list[str]]:
    figures = [final_figures(run) for run in runs]
    facts = {
        "job": [run.job for run in runs],
        "state": [run.state for run in runs],
        "begun": [f"{datetime.fromtimestamp(run.begun):%Y-%m-%d %H:%M}" if run.begun else "" for run in runs],
        "method": [method_of(run) for run in runs],
        "teacher": [run.teacher for run in runs],
        "data": [str((run.summary or {}).get("data", "")) for run in runs],
        "machine": [str((run.summary or {}).get("machine", "")) for run in runs],
    }
    rows = [[name, *values] for name, values in facts.items()]
    for name in dict.fromkeys(name for each in figures for name in each):
        rows.append([name, *(shown_figure(name, each[name]) if name in each else "" for each in figures)])
    return [["", *names], *rows]


def _setting_rows(names: Sequence[str], runs: Sequence[ListedRun]) -> list[list[str]]:
    found = differences([run.config for run in runs])
    rows = [[name, *("" if value is None else str(value) for value in values)] for name, values in found.items()]
    return [["setting", *names], *(rows or [["none: all settings are the same", *("" for _ in names)]])]


# --- figures ----------------------------------------------------------------------------------------------------


def curves(metrics: pd.DataFrame, names: Sequence[str], width: float = WIDE) -> Figure | None:
    """Draw metrics over steps, a panel for each metric and a line for each run; None without rows.

    Args:
        metrics: rows of `frames.metrics_frame`, of runs by these names.
        width: width of the figure, in inches.
    """
    courses = metrics["name"].str.extract(COURSE, expand=False)
    wanted = {label: metrics[metrics["name"] == name] for name, label in CURVES.items()}
    wanted |= {f"{method}: accuracy": metrics[courses == method] for method in courses.dropna().unique()}
    return _panels(wanted, names, "step", width)


def loss_terms(metrics: pd.DataFrame, names: Sequence[str], width: float = WIDE) -> Figure | None:
    """Draw each loss term over the updates of the pixels, mean over a run's stored batches; see `curves`."""
    terms = [str(name) for name in metrics["name"].dropna().unique() if str(name).startswith("loss/")]
    wanted = {term.removeprefix("loss/"): metrics[metrics["name"] == term] for term in terms}
    return _panels(wanted, names, "update of the pixels", width)


def _panels(wanted: Mapping[str, pd.DataFrame], names: Sequence[str], x: str, width: float) -> Figure | None:
    found = {label: rows for label, rows in wanted.items() if len(rows)}
    if not found:
        return None
    figure, panels = panel_grid(len(found), width)
    for axes, (label, rows) in zip(panels, found.items(), strict=True):
        for index, name in enumerate(names):
            line = _line(rows[rows["run"] == name])
            # A run has the same color in all panels, whether or not it has been measured there.
            marker = "." if len(line) < 60 else ""
            color = colormaps["tab10"](index % 10)
            axes.plot(line.index, line, color=color, linewidth=1.3, marker=marker, label=_plain(name))
        axes.set_title(_plain(label), fontsize=11)
        axes.set_xlabel(x)
        if any(word in label for word in ("accuracy", "agreement")):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        dress(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=fitting(width, 3, 1), fontsize=9, frameon=False)
    return figure


def _line(rows: pd.DataFrame) -> "pd.Series[float]":
    # A resumed run may have measured a step twice: the later row counts.
    rows = rows.dropna(subset=["step", "value"]).sort_values("time_s", kind="stable")
    return rows.drop_duplicates(["source", "batch", "step"], keep="last").groupby("step")["value"].mean()


def _plain(label: str) -> str:
    """Escape a label, so that matplotlib reads no formula in it."""
    return label.replace("$", r"\$")


def _metrics(names: Sequence[str], runs: Sequence[str], damage: dict[str, str]) -> pd.DataFrame:
    """Read `metrics_frame` of the runs by short name; reasons why one cannot be read are added to `damage`."""
    found = [metrics_frame([])]
    for name, run in zip(names, runs, strict=True):
        try:
            found.append(metrics_frame([run]).assign(run=name))
        except (InputError, ShardError) as error:
            damage.setdefault(name, str(error))
    filled = [frame for frame in found if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else found[0]


def _grids(names: Sequence[str], runs: Sequence[str], damage: dict[str, str]) -> list[Picture]:
    """Draw a grid for each shape of images, with a row for each run: the first batch of its last round.

    Reasons why images cannot be read are added to `damage`.
    """
    last: dict[tuple[int, ...], dict[str, ImageBatch]] = {}
    for name, run in zip(names, runs, strict=True):
        try:
            for batch in grid_batches(run_folder.resume(str(run), "RUN")[0])[-1:]:
                last.setdefault(batch.images.shape[1:], {})[_plain(name)] = batch
        except (InputError, ShardError) as error:
            damage.setdefault(name, str(error))
    return [
        grid_picture(
            labeled_grid(list(of), [each.images for each in of.values()], [each.targets for each in of.values()]),
            f"Images of {shape[0]} x {shape[1]} x {shape[2]}: each column should show one class, in every row.",
        )
        for shape, of in last.items()
    ]


_LEFT_OUT = "What these runs hold and could not be read."
_FIGURES = (
    "As each run's summary has them. Accuracies can be compared where data and image counts are the same, seconds "
    "where the machine is."
)
_SETTINGS = "What is not named is the same in all runs."
_OVER_STEPS = "One color for each run."
_CURVES = "Lines of runs that differ in nothing but the seed should lie together; others tell what the difference does."
_TERMS = "Mean over the batches of which a run keeps curves, before the coefficient."
_LOSSES = "A term that one run weighs more should end lower there, and may end higher in the others."
_PICTURES = "The first images of each class in the first batch of each run's last round; none was picked."
