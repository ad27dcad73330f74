"""The report of a run: one self-contained page, made from its folder."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from raydream.errors import ShardError
from raydream.reporting.answers import real_images, student_answers
from raydream.reporting.cost import cost_rows
from raydream.reporting.figures import (
    accuracy_curves,
    buffer_curves,
    distance_figure,
    loss_curves,
    student_curves,
    target_share_figure,
    timeline,
    training_curves,
)
from raydream.reporting.gallery import Gallery, gallery, gallery_batches
from raydream.reporting.page import Section, page_of_run, repair_rows, write_page
from raydream.reporting.quantization import layer_rows, sensitivity_figure, source_rows
from raydream.reporting.student import class_figure, compared_rows, reliability_figure
from raydream.runs.journal import Entry
from raydream.runs.metrics_table import COLUMNS, read_metrics
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import TrainSummary
from raydream.runs.summary import Summary
from raydream.store.documents import read_yaml
from raydream.store.folders import LocalFolder


def write_report(folder: RunFolder, summary: Summary) -> Path:
    """Write the page of a run folder to its report.html, from its configuration, metrics, journal and shards.

    Figures without metrics are left out, and so are figures of the summary that were not measured.

    Args:
        summary: the final figures.

    Returns:
        path of report.html.

    Raises:
        ShardError: a shard to show cannot be read.
        DocumentError: the configuration is damaged.
        OSError: a file is missing, or the folder cannot be written.
    """
    run, figures = folder.path, summary.as_json()
    config = read_yaml(LocalFolder(run), "config.yaml") or {}
    try:
        metrics, damage = read_metrics(folder.metrics), []
    except ShardError as error:
        metrics = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)
        damage = repair_rows([Entry(time.time(), f"{error}; what is drawn from them is left out")])
    page = page_of_run(
        folder,
        config.get("experiment") or "run",
        summary,
        accuracies=_accuracies(figures),
        facts=_facts(figures, summary),
        sections=_of_training(figures, metrics)
        if isinstance(summary, TrainSummary)
        else _sections(_gallery(folder, config), config, figures, metrics),
    )
    return write_page(folder.report, replace(page, repairs=[*page.repairs, *damage]))


# --- the summary in words ---------------------------------------------------------------------------------------


def _accuracies(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    # (who, accuracy, measured on what)
    images = _number(summary, "test_images")
    data = summary.get("data") or "unnamed data"
    on = f"test split of {data}" + (f", {images:,.0f} real images" if images is not None else "")
    best_step = _number(summary, "student_accuracy_best_step")
    best = "student, best" + (f" (step {best_step:,.0f})" if best_step is not None else "")
    chosen = f"{on}; chosen on the validation split"
    named = [
        ("teacher_accuracy", "teacher", on),
        ("student_accuracy", "student, last", f"{on}; at the end of the run"),
        ("student_accuracy_best", best, chosen),
        ("pruned_accuracy", "pruned network", f"{on}; at the end of the run"),
    ]
    rows = []
    for key, who, measured_on in named:
        share = _number(summary, key)
        if share is not None:
            digits = 1 if images is None or images < 1000 else 2
            right = f"; {share * images:,.0f} right" if images is not None else ""
            rows.append((who, f"{100 * share:.{digits}f} %", measured_on + right))
    return rows


def _facts(summary: Mapping[str, Any], whole: Summary) -> list[tuple[str, str]]:
    counts = {
        "images": "images",
        "rounds": "rounds",
        "epochs": "epochs",
        "distillation_steps": "distillation steps",
        "generators": "generators",
        "teacher_parameters": "parameters of the teacher",
        "student_parameters": "parameters of the student",
        "teacher_filters": "filters of the teacher",
        "pruned_filters": "filters of the pruned network",
        "teacher_flops": "FLOPs of the teacher, for one image",
        "pruned_flops": "FLOPs of the pruned network, for one image",
        "weight_bits": "bits of weights",
        "activation_bits": "bits of activations",
        "teacher_bytes": "bytes of the teacher's ONNX file",
        "student_bytes": "bytes of the quantized network's ONNX file",
        "packed_bytes": "bytes of the quantized network's numbers, packed",
    }
    rows = [("method", str(summary["method"]))] if summary.get("method") is not None else []
    for key, words in counts.items():
        count = _number(summary, key)
        if count is not None:
            rows.append((words, f"{count:,.0f}"))
    for pair in summary.get("latencies", []):
        rows += [(f"latency of {name}, batches of {each['batch_size']}", _latency(each)) for name, each in pair.items()]
    wall = _number(summary, "wall_s")
    if wall is not None:
        rows.append(("wall time", f"{wall:,.1f} s"))
    rows += list(cost_rows(whole).items())
    shares = {
        "share": "share of the images that was learned from",
        "agreement": "test images that are named as the teacher names them",
        "student_calibration_error": "student's calibration error (15 bins)",
        "teacher_calibration_error": "teacher's calibration error (15 bins)",
    }
    for key, words in shares.items():
        share = _number(summary, key)
        if share is not None:
            rows.append((words, f"{100 * share:.1f} %"))
    overlap = _number(summary, "overlap_share")
    if overlap is not None:
        rows.append(("student's training time with a busy generator (overlap)", f"{100 * overlap:.1f} %"))
    if summary.get("reused"):
        reused = ", ".join(f"{count:,} by {run}" for run, count in summary["reused"].items())
        rows.append(("batches that earlier runs had made", reused))
    for key, words in (
        ("images_of", "images of"),
        ("feed", "images by way of"),
        ("seed", "run seed"),
        ("teacher_fingerprint", "teacher's fingerprint"),
    ):
        if summary.get(key) is not None:
            rows.append((words, str(summary[key])))
    return rows


def _latency(measured: Mapping[str, Any]) -> str:
    low, median, high = (f"{1000 * measured[name]:,.3g}" for name in ("low_s", "median_s", "high_s"))
    return f"{median} ms (the middle half of {measured['passes']} passes: {low} to {high} ms)"


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if value is not None and is_number else None


def _mapping(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


# --- figures ----------------------------------------------------------------------------------------------------


def _gallery(folder: RunFolder, config: Mapping[str, Any]) -> Gallery | None:
    batches = gallery_batches(folder)
    real = real_images(config) if batches else None
    return gallery(batches, partial(student_answers, folder, config), real, _GALLERY)


def _sections(
    images: Gallery | None, config: Mapping[str, Any], summary: Mapping[str, Any], metrics: pd.DataFrame
) -> list[Section]:
    teacher, asked = _number(summary, "teacher_accuracy"), _number(_mapping(config, "buffer"), "samples_per_insert")
    return [
        Section("Accuracy", _ACCURACY, [accuracy_curves(metrics, teacher)]),
        Section(
            "Student beside teacher",
            "The last student and its teacher on the test split.",
            [class_figure(summary), reliability_figure(summary)],
        ),
        Section("Calibration images", _SOURCES, [], source_rows(summary)),
        Section("Sensitivity by layer", _LAYERS, [sensitivity_figure(summary)], layer_rows(summary)),
        Section("Beside other runs", _COMPARED, [], compared_rows(summary)),
        Section("Timeline", _TIMELINE, [timeline(metrics)]),
        Section(
            "Images",
            "The first images of each class in the first batch of a round, as they are stored; none was picked. Real "
            "images are of the test split.",
            [images, target_share_figure(metrics)],
        ),
        Section("Loss terms", "What the generators minimized, term by term.", [loss_curves(metrics)]),
        Section(
            "Feature distance by layer",
            "How far the images' feature statistics are from those that the teacher's BN layers keep of its "
            "training data.",
            [distance_figure(metrics)],
        ),
        Section(
            "Student", "Measured while it learned, on the synthetic images of the step.", [student_curves(metrics)]
        ),
        Section(
            "Buffer and limiter",
            "The limiter ties the number of draws to the number of images that join the buffer.",
            [buffer_curves(metrics, asked)],
        ),
    ]


def _of_training(summary: Mapping[str, Any], metrics: pd.DataFrame) -> list[Section]:
    at_the_end = _number(summary, "teacher_accuracy")
    return [
        Section("Accuracy", _TRAINED, [accuracy_curves(metrics, at_the_end, "teacher")]),
        Section("Timeline", "The stages, and the stretches in which the network learned.", [timeline(metrics)]),
        Section("Teacher", "Measured while it learned, on the views of the step.", [training_curves(metrics)]),
    ]


_TRAINED = (
    "The teacher learned from the training split of real images. The validation split follows its course, the test "
    "split is what is reported."
)
_ACCURACY = (
    "The student never learns from real images; they only measure it: the validation split chooses the best round, the "
    "test split is what is reported. On synthetic images, what the teacher says they show counts as right."
)
_TIMELINE = (
    "Batches and the student's steps have the color of their round; in round 0 there is no student to compete with."
)
_SOURCES = (
    "The same post-training quantization on other images, on the test split; real images are of the training split, "
    "without their labels."
)
_LAYERS = (
    "Each layer was quantized alone, on the images: how far the outputs then are from the float network's, in nats, "
    "and how often both name the same class."
)
_COMPARED = (
    "Each run's last student on the test split, and the settings in which a run differs from this one; what is not "
    "named is the same."
)
_GALLERY = (
    "Each row should show one class in recognizable variety, and later rounds should differ from round 0 where the "
    "student competes. A dashed frame: the teacher does not name the target; a solid frame: a real image. Click an "
    "image for the networks' probabilities."
)
