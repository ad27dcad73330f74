"""Comparison of runs: one self-contained page of their differences, results and images."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from raydream.config.tree import leaves
from raydream.errors import InputError, ShardError
from raydream.reporting.charts import Axis, Chart, Line, Mosaic, Panel, Point, Table, banded, best_rows, category
from raydream.reporting.gallery import mosaic
from raydream.reporting.page import Page, Section, write_page
from raydream.reporting.picture_grid import grid_batches
from raydream.reporting.thinning import thinned_curve
from raydream.runs import run_folder
from raydream.runs.frames import differences, final_figures, method_of, metrics_frame
from raydream.runs.run_list import ListedRun, read_run, short_names
from raydream.runs.summary import SHARES, shown_figure
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
    colors = {name: category(index) for index, name in enumerate(names)}
    seeds = seed_groups(names, [run.config for run in listed])
    page = Page(
        title="Runs beside each other",
        run=", ".join(names),
        accuracies=tiles,
        filters=list(colors.items()),
        sections=[
            Section("Final figures", _FIGURES, [], _figure_table(names, listed)),
            Section("Settings that differ", _SETTINGS, [], _setting_table(names, listed)),
            Section("Over seeds", _SEEDS, [seed_curves(metrics, seeds)]),
            Section("Curves over each other", _OVER_STEPS, [curves(metrics, colors)]),
            Section("Loss terms over each other", _TERMS, [loss_terms(metrics, colors)]),
            Section("Pictures side by side", _PICTURES, grids),
            Section("Left out", _LEFT_OUT, [], Table(["run", "reason"], list(damage.items())) if damage else None),
        ],
    )
    return write_page(path, page)


# --- tables -----------------------------------------------------------------------------------------------------


def _figure_table(names: Sequence[str], runs: Sequence[ListedRun]) -> Table:
    """Return a row for each run; those with the best main figure are marked, if all have the same one."""
    figures = [final_figures(run) for run in runs]
    main = [run.figure.name for run in runs if run.figure]
    found = list(dict.fromkeys(name for each in figures for name in each))
    found.sort(key=lambda name: (name not in main, not any(part in name for part in SHARES)))
    headings = [
        "run",
        *(name.replace("_", " ") for name in found),
        "job",
        "state",
        "begun",
        "method",
        "teacher",
        "data",
        "machine",
    ]
    rows = []
    for name, run, values in zip(names, runs, figures, strict=True):
        begun = f"{datetime.fromtimestamp(run.begun):%Y-%m-%d %H:%M}" if run.begun else ""
        data, machine = (str((run.summary or {}).get(key, "")) for key in ("data", "machine"))
        shown = [shown_figure(figure, values[figure]) if figure in values else "" for figure in found]
        rows.append([name, *shown, run.job, run.state, begun, method_of(run), run.teacher, data, machine])
    same = len({run.figure.name for run in runs if run.figure}) == 1
    best = best_rows([run.figure.value if run.figure else None for run in runs]) if same else []
    return Table(headings, rows, best)


def _setting_table(names: Sequence[str], runs: Sequence[ListedRun]) -> Table:
    found = differences([run.config for run in runs])
    if not found:
        return Table(["run", "settings"], [[name, "none: all settings are the same"] for name in names])
    rows = [
        [name, *("" if values[index] is None else str(values[index]) for values in found.values())]
        for index, name in enumerate(names)
    ]
    return Table(["run", *found], rows)


def seed_groups(names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the runs that differ in nothing but their seed, by the name of a group; only groups of several runs.

    A group is named by the settings in which the groups differ, or by its first run.
    """
    groups: list[tuple[dict[str, Any], list[str]]] = []
    for name, config in zip(names, configs, strict=True):
        settings = {key: value for key, value in leaves(config).items() if key not in ("seed", "experiment")}
        known = next((members for same, members in groups if same == settings), None)
        if known is None:
            groups.append((settings, [name]))
        else:
            known.append(name)
    several = [(settings, members) for settings, members in groups if len(members) > 1 and settings]
    differing = differences([settings for settings, _ in several]) if len(several) > 1 else {}
    found = {}
    for index, (_, members) in enumerate(several):
        text = ", ".join(f"{key.rpartition('.')[2]} {values[index]}" for key, values in differing.items())
        found[f"{text or members[0]} ({len(members)} seeds)"] = members
    return found


# --- charts -----------------------------------------------------------------------------------------------------


def curves(metrics: pd.DataFrame, colors: Mapping[str, str]) -> Chart | None:
    """Draw metrics over steps, a panel for each metric and a line for each run; None without rows.

    Args:
        metrics: rows of `frames.metrics_frame`.
        colors: of the runs, by name.
    """
    return _panels(_over_steps(metrics), colors, "step", _CURVES)


def loss_terms(metrics: pd.DataFrame, colors: Mapping[str, str]) -> Chart | None:
    """Draw each loss term over the updates of the pixels, mean over a run's stored batches; see `curves`."""
    terms = [str(name) for name in metrics["name"].dropna().unique() if str(name).startswith("loss/")]
    wanted = {term.removeprefix("loss/"): metrics[metrics["name"] == term] for term in terms}
    return _panels(wanted, colors, "update of the pixels", _LOSSES)


def seed_curves(metrics: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> Chart | None:
    """Draw metrics over steps: each group's mean, and a band from its lowest to its highest run; None without rows."""
    colors = {group: category(index) for index, group in enumerate(groups)}
    panels = []
    for label, rows in _over_steps(metrics).items():
        found = {group: [_line(rows[rows["run"] == name]) for name in members] for group, members in groups.items()}
        lines = [line for line in banded(found, colors) if line.points]
        if lines:
            panels.append(Panel(label, Axis("step"), _axis(label), lines))
    return Chart("Where bands overlap, the difference may be the seed's.", panels) if panels else None


def _over_steps(metrics: pd.DataFrame) -> dict[str, pd.DataFrame]:
    courses = metrics["name"].str.extract(COURSE, expand=False)
    wanted = {label: metrics[metrics["name"] == name] for name, label in CURVES.items()}
    return wanted | {f"{method}: accuracy": metrics[courses == method] for method in courses.dropna().unique()}


def _panels(wanted: Mapping[str, pd.DataFrame], colors: Mapping[str, str], x: str, caption: str) -> Chart | None:
    panels = []
    for label, rows in wanted.items():
        found = {name: _line(rows[rows["run"] == name]) for name in colors}
        # A run has the same color in all panels, whether or not it has been measured there.
        lines = [Line(name, points, colors[name]) for name, points in found.items() if points]
        if lines:
            panels.append(Panel(label, Axis(x), _axis(label), lines))
    return Chart(caption, panels) if panels else None


def _axis(label: str) -> Axis:
    return Axis(label, share=any(word in label for word in ("accuracy", "agreement")), log="loss" in label)


def _line(rows: pd.DataFrame) -> list[Point]:
    # A resumed run may have measured a step twice: the later row counts.
    rows = rows.dropna(subset=["step", "value"]).sort_values("time_s", kind="stable")
    rows = rows.drop_duplicates(["source", "batch", "step"], keep="last")
    means = thinned_curve(rows.groupby("step")["value"].mean().reset_index())
    return list(zip(means["step"].astype(float), means["value"].astype(float), strict=True))


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


def _grids(names: Sequence[str], runs: Sequence[str], damage: dict[str, str]) -> list[Mosaic]:
    """Show images in a table for each shape, with a row for each run: the first batch of its last round.

    Reasons why images cannot be read are added to `damage`.
    """
    last: dict[tuple[int, ...], dict[str, ImageBatch]] = {}
    for name, run in zip(names, runs, strict=True):
        try:
            for batch in grid_batches(run_folder.resume(str(run), "RUN")[0])[-1:]:
                last.setdefault(batch.images.shape[1:], {})[name] = batch
        except (InputError, ShardError) as error:
            damage.setdefault(name, str(error))
    return [
        mosaic(
            [(name, batch.images, batch.targets) for name, batch in of.items()],
            f"Images of {' x '.join(map(str, shape))}: each column should show one class, in every row.",
            examples=2,
        )
        for shape, of in last.items()
    ]


_LEFT_OUT = "What these runs hold and could not be read."
_FIGURES = (
    "As each run's summary has them. Accuracies can be compared where data and image counts are the same, seconds "
    "where the machine is."
)
_SEEDS = (
    "Runs that differ in nothing but their seed, together: the mean of all seeds, and a band from the lowest to the "
    "highest."
)
_SETTINGS = "What is not named is the same in all runs."
_OVER_STEPS = "One color for each run."
_CURVES = "Lines of runs that differ in nothing but the seed should lie together; others show what the difference does."
_TERMS = "Mean over the batches of which a run keeps curves, before the coefficient."
_LOSSES = "A term that one run weighs more should end lower there, and may end higher in the others."
_PICTURES = "The first images of each class in the first batch of each run's last round; none was picked."
