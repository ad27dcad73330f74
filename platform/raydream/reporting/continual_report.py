"""The report of class-incremental learning: one self-contained page, made from its folder."""

from pathlib import Path
from typing import Any

import numpy as np

from raydream.applications.continual.measures import Accuracies, accuracies
from raydream.applications.continual.results import FIGURES, CourseResults
from raydream.config import ContinualConfig
from raydream.reporting.charts import Table, best_rows
from raydream.reporting.continual_figures import confusion_figure, epoch_curves, stand_ins, step_curves
from raydream.reporting.cost import cost_rows
from raydream.reporting.page import Section, page_of_run, write_page
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import ExtendSummary


def write_continual_report(
    folder: RunFolder, config: ContinualConfig, summary: ExtendSummary, results: CourseResults
) -> Path:
    """Write report.html of a completed run; raises OSError.

    Returns:
        its path.
    """
    methods, seed = summary.methods, config.seed
    courses = {method: [results.steps(method, seed + index) for index in range(summary.seeds)] for method in methods}
    curves = {method: [[step["curve"] for step in steps] for steps in same] for method, same in courses.items()}
    made = {method: results.images(method, seed, 1) for method in methods}
    images = {method: each for method, each in made.items() if each is not None}
    on = f"{summary.test_images:,} real test images of all classes, mean over seeds: "
    page = page_of_run(
        folder,
        f"Continual: {config.experiment}",
        summary,
        accuracies=[
            (method, _percent(values["accuracy_all"]), f"{on}{values['courses']}") for method, values in methods.items()
        ],
        facts=[*_facts(summary), *cost_rows(summary).items()],
        sections=[
            Section("After the last step", _FIGURES, [], _figures(methods)),
            Section(
                "Step by step",
                "Step 0 is the teacher before it learned anything new. Real test images, mean over seeds.",
                [step_curves(_accuracies(summary, courses))],
                _steps(summary),
            ),
            Section(
                "Within the steps",
                "Real validation images, after each epoch: mean of seeds, and a band from the lowest to the highest.",
                [epoch_curves(curves)],
            ),
            Section(
                "Confusion matrices",
                "After the last step, real test images, summed over seeds; each row adds up to 1.",
                [confusion_figure(methods)],
            ),
            Section(
                "What stood for the old classes",
                f"One image of each class in the first step, as it is stored; none was picked. Seed {seed}.",
                [stand_ins(images)],
            ),
        ],
    )
    return write_page(folder.report, page)


def _accuracies(
    summary: ExtendSummary, courses: dict[str, list[list[dict[str, Any]]]]
) -> dict[str, list[list[Accuracies]]]:
    """Return each seed's accuracies before the first step, which all seeds share, and after each stored one."""
    sizes, found = summary.classes_by_group, {}
    for method, same in courses.items():
        first = summary.methods[method]["steps"][0]
        before = Accuracies(
            **{name: first[f"accuracy_{name}"] for name in ("all", "old", "new", "average")},
            groups=tuple(first["accuracy_by_group"]),
        )
        found[method] = [
            [before, *(accuracies(np.array(step["confusion"]), sizes[: index + 2]) for index, step in enumerate(steps))]
            for steps in same
        ]
    return found


def _percent(share: float | None, spread: float | None = None) -> str:
    if share is None:
        return "–"
    return f"{100 * share:.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "") + " %"


def _facts(summary: ExtendSummary) -> list[tuple[str, str]]:
    return [
        ("teacher on its own classes", _percent(summary.teacher_accuracy)),
        ("classes, group by group", " + ".join(map(str, summary.classes_by_group))),
        ("data of the groups", ", ".join(summary.data)),
        ("real images of new classes, by step", ", ".join(map(str, summary.new_images))),
        ("images of each old class before each step", str(summary.images_per_class)),
        ("seeds", str(summary.seeds)),
        ("wall time", f"{summary.wall_s:,.1f} s"),
        ("teacher's fingerprint", str(summary.teacher_fingerprint)),
    ]


def _figures(methods: dict[str, Any]) -> Table:
    head = ["method", "all classes", "old", "new", "average over groups", "forgetting", "seconds", "seeds"]
    rows = []
    for method, values in methods.items():
        cells = [_percent(values[name], values[f"{name}_spread"]) for name in FIGURES]
        rows.append([method, *cells, f"{values['seconds']:,.0f}", str(values["courses"])])
    # Oracles see what the others do not.
    fair = [None if method.startswith("oracle") else values["accuracy_all"] for method, values in methods.items()]
    return Table(head, rows, best_rows(fair))


def _steps(summary: ExtendSummary) -> Table:
    groups = len(summary.classes_by_group)
    head = ["method", "step", "all classes", "old", "new", *(f"group {group}" for group in range(groups))]
    rows = []
    for method, values in summary.methods.items():
        for step, measured in enumerate(values["steps"]):
            shares = [measured[f"accuracy_{name}"] for name in ("all", "old", "new")]
            by_group = [*measured["accuracy_by_group"], *[None] * (groups - step - 1)]
            rows.append([method, str(step), *map(_percent, [*shares, *by_group])])
    return Table(head, rows)


_FIGURES = (
    "Real test images; mean ± standard deviation over seeds. Old: classes known before the last step. Forgetting: how "
    "far a group of classes has fallen from where it was best, mean over the groups. Oracles learn from real images of "
    "the old classes, which the others never see."
)
