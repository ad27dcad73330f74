"""Comparison with earlier runs: their results, and the settings in which they differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from raydream.config.tree import leaves
from raydream.errors import DocumentError, InputError, first_line
from raydream.runs.run_folder import SUMMARY, read
from raydream.runs.summaries import TransferSummary
from raydream.runs.summary import read as read_figures
from raydream.store.documents import read_json
from raydream.store.folders import folder_at

FIGURES = (
    *("images_of", "images", "distillation_steps", "teacher_fingerprint"),
    *("student_accuracy", "agreement", "student_calibration_error"),
)
"""what is shown of each run, where it was measured"""
PERMISSION = "download"
"""a setting of `data` that does not affect the data, and that version 0.1 did not have"""
UNLIKE = (
    *("experiment", "compare", "device", "feed", "reuse", "stall_timeout_s", "generators", "training"),
    f"data.{PERMISSION}",
)
"""settings that do not affect what is learned, or that the fingerprint of the teacher covers"""


def compared(config: Mapping[str, Any], runs: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of finished transfer runs, and where their configurations differ from this one.

    Args:
        config: of this run, in plain types.
        runs: folders or URLs.

    Raises:
        InputError: one of them is no such run, is not done, or was measured on other data.
    """
    return [_one(config, run) for run in runs]


def _one(config: Mapping[str, Any], run: str) -> dict[str, Any]:
    allowed = "folders of runs of this job that are done"
    _, theirs = read(run, "compare")
    try:
        summary = read_figures(TransferSummary, read_json(folder_at(run, "compare"), SUMMARY))
        if summary.teacher_fingerprint is None:
            raise DocumentError("it names no teacher")
    except (OSError, DocumentError) as error:
        raise InputError("compare", run, allowed, f"reading its summary failed: {first_line(error)}") from error
    if _data(theirs) != _data(config):
        remedy = "its accuracy is of other images: leave it out"
        raise InputError("compare", run, "measured on the same data as this run", remedy)
    figures = {name: value for name, value in summary.as_json().items() if name in FIGURES}
    return {"run": run, **figures, "differs": _differs(config, theirs)}


def _data(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide what a run was measured on."""
    settings = config.get("data")
    return {name: value for name, value in settings.items() if name != PERMISSION} if isinstance(settings, dict) else {}


def with_teachers(runs: Sequence[dict[str, Any]], fingerprint: str) -> list[dict[str, Any]]:
    """Add to the differences that `compared` found that a student learned from a teacher of other weights."""
    other = {"teacher": "of other weights"}
    return [
        run if run["teacher_fingerprint"] == fingerprint else run | {"differs": run["differs"] | other} for run in runs
    ]


def _differs(config: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of another run, by dotted name, that differ from this run's."""
    ours, others = leaves(config), leaves(theirs)
    return {
        name: others.get(name)
        for name in [*ours, *(name for name in others if name not in ours)]
        if ours.get(name) != others.get(name)
        and not name.startswith(UNLIKE)
        and (name != "teacher.checkpoint")
        and not (name.startswith(("synthesis", "new_images")) and theirs.get("images"))
    }
