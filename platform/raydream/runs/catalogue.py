"""The jobs: how the settings of a run tell which of them began it, and the one figure that each is after.

A run folder does not say which job it is of: its settings do, as no two jobs have the same ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SHARES = ("accuracy", "share", "agreement", "ratio", "calibration_error", "forgetting")
"""parts of the names of figures that are shares, and shown in percent"""


@dataclass(frozen=True)
class Figure:
    """A final figure of a run.

    Attributes:
        name: what it is.
        value: as it stands in the summary; shares are in [0, 1].
    """

    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')} {shown_figure(self.name, self.value)}"


@dataclass(frozen=True)
class Kind:
    """A job.

    Attributes:
        job: name of its script.
        settings: which its configuration has, and none of those after it in `KINDS` has all of.
        figure: from a summary to the main figure; raises what looking into one raises where it is not there.
    """

    job: str
    settings: frozenset[str]
    figure: Callable[[Mapping[str, Any]], Figure]


def _named(*names: str) -> Callable[[Mapping[str, Any]], Figure]:
    """The first of these that there is."""

    def figure(summary: Mapping[str, Any]) -> Figure:
        name = next((name for name in names if name in summary), names[0])
        return Figure(name, float(summary[name]))

    return figure


def _best_method(summary: Mapping[str, Any]) -> Figure:
    reached = {name: values["accuracy_all"] for name, values in summary["methods"].items()}
    best = max(reached, key=lambda name: float(reached[name]))
    return Figure(f"accuracy of all classes, {best}", float(reached[best]))


def _best_value(summary: Mapping[str, Any]) -> Figure:
    return Figure(f"best {summary['metric']}", float(summary["best_value"]))


def _best_row(summary: Mapping[str, Any]) -> Figure:
    return Figure(f"best {summary['metric']}", float(summary["rows"][0][f"{summary['metric']}_mean"]))


def _least_share(summary: Mapping[str, Any]) -> Figure:
    return Figure("least target_share", float(min(summary["target_share"].values())))


def _best_of_table(summary: Mapping[str, Any]) -> Figure:
    headline = str(summary["headline"])
    reached = {row: float(told["mean"]) for row, told in summary[headline].items() if row != "teacher"}
    best = max(reached, key=lambda row: reached[row])
    return Figure(f"table {summary['table']}, {headline}, {best}", reached[best])


KINDS = (
    Kind("search", frozenset({"space"}), _best_value),
    Kind("ablate", frozenset({"rounds", "seeds", "trial"}), _best_row),
    Kind("reproduce", frozenset({"table", "scale"}), _best_of_table),
    Kind("continual", frozenset({"methods", "steps"}), _best_method),
    Kind("prune", frozenset({"pruning"}), _named("pruned_accuracy", "parameters_ratio")),
    Kind("transfer", frozenset({"epochs", "feed"}), _named("student_accuracy")),
    Kind("distill", frozenset({"rounds", "buffer"}), _named("student_accuracy")),
    Kind("synthesize", frozenset({"synthesis", "png"}), _named("target_share")),
    Kind("evaluate", frozenset({"images", "verifiers"}), _least_share),
    Kind("train_teacher", frozenset({"teacher", "training"}), _named("teacher_accuracy")),
)


def kind_of(config: Mapping[str, Any]) -> Kind | None:
    """The job that a run's settings are of; None: of none that is known."""
    return next((kind for kind in KINDS if kind.settings <= config.keys()), None)


def main_figure(config: Mapping[str, Any], summary: Mapping[str, Any] | None) -> Figure | None:
    """The main figure of a run; None: it is not done, or had nothing to measure it on."""
    kind = kind_of(config)
    if kind is None or summary is None:
        return None
    try:
        return kind.figure(summary)
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def shown_figure(name: str, value: float) -> str:
    """A figure in a table: shares in percent, counts whole, others with four digits."""
    if any(part in name for part in SHARES) and abs(value) <= 1:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"
