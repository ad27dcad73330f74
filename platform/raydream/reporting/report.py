"""The report of a run: one self-contained page, made from what its folder holds."""

import base64
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from raydream.errors import ShardError
from raydream.records import ImageBatch
from raydream.reporting.figures import (
    DPI,
    MOST_CURVES,
    NARROW,
    WIDE,
    accuracy_curves,
    buffer_curves,
    distance_figure,
    grid_batches,
    image_grid,
    loss_curves,
    student_curves,
    target_share_figure,
    timeline,
)
from raydream.reporting.journal import Entry, read_journal
from raydream.reporting.recorder import COLUMNS, read_metrics
from raydream.reporting.run_folder import RunFolder
from raydream.storage import write_aside

MOST_SVG_BYTES = 400_000
"""a figure whose drawing is larger than that goes into the page as a PNG"""

Draw = Callable[[float], Figure | None]
"""from a width in inches to a figure, or None where its rows are absent"""


@dataclass(frozen=True)
class Picture:
    """A figure as it stands in the page.

    Attributes:
        caption: one sentence: what one should see in it.
        source: data URI.
        narrow: data URI of the same figure drawn for a narrow window; None: the one above is scaled.
    """

    caption: str
    source: str
    narrow: str | None = None


@dataclass(frozen=True)
class Section:
    """A heading, a few words and figures; it is left out where there is no figure.

    Attributes:
        title: the heading, in lower case.
        text: what was measured, and on what.
        pictures: in order.
    """

    title: str
    text: str
    pictures: list[Picture]


def write_report(folder: RunFolder) -> Path:
    """Write the page of a run folder to its report.html, from config.yaml, summary.json, metrics.parquet and shards.

    Figures whose metrics are absent are left out, and so are figures of the summary that were not measured.

    Returns:
        path of report.html.

    Raises:
        ShardError: a shard that is to be shown cannot be read.
        OSError: a file is missing, or the folder may not be written.
    """
    run = folder.path
    text = (run / "config.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text) or {}
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    mended = read_journal(run / "journal.jsonl")
    try:
        metrics = read_metrics(run / "metrics.parquet")
    except ShardError as error:
        metrics = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)
        mended.append(Entry(time.time(), f"{error}; what is drawn from them is left out"))
    environment = Environment(
        loader=PackageLoader("raydream", "reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=config.get("experiment") or "run",
        run=folder.shown().rpartition("/")[2],
        accuracies=_accuracies(summary),
        facts=_facts(summary),
        stages=_stages(summary),
        mended=[(f"{datetime.fromtimestamp(entry.moment):%Y-%m-%d %H:%M:%S}", entry.text) for entry in mended],
        sections=[section for section in _sections(grid_batches(folder), config, summary, metrics) if section.pictures],
        config=text,
        versions=_mapping(summary, "versions"),
        machine=summary.get("machine"),
    )
    path = run / "report.html"
    write_aside(path, lambda aside: aside.write_text(page, encoding="utf-8"))
    return path


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


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
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
    overlap = _number(summary, "overlap_share")
    if overlap is not None:
        rows.append(("student's training time with a generator at work (overlap)", f"{100 * overlap:.1f} %"))
    for key, words in (("feed", "images from"), ("seed", "run seed"), ("teacher_fingerprint", "teacher's fingerprint")):
        if summary.get(key) is not None:
            rows.append((words, str(summary[key])))
    return rows


def _latency(measured: Mapping[str, Any]) -> str:
    low, median, high = (f"{1000 * measured[name]:,.3g}" for name in ("low_s", "median_s", "high_s"))
    return f"{median} ms (the middle half of {measured['passes']} passes: {low} to {high} ms)"


def _stages(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    # (stage, seconds, share of the wall time)
    stages, wall = _mapping(summary, "seconds_by_stage"), _number(summary, "wall_s")
    rows = []
    for stage in stages:
        seconds = _number(stages, stage)
        if seconds is not None:
            rows.append((stage, f"{seconds:,.1f} s", f"{100 * seconds / wall:.0f} %" if wall else ""))
    return rows


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if value is not None and is_number else None


def _mapping(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


# --- figures ----------------------------------------------------------------------------------------------------


def _sections(
    batches: list[ImageBatch], config: Mapping[str, Any], summary: Mapping[str, Any], metrics: pd.DataFrame
) -> list[Section]:
    teacher, asked = _number(summary, "teacher_accuracy"), _number(_mapping(config, "buffer"), "samples_per_insert")
    grid = [_grid(image_grid(batches))] if batches else []
    return [
        Section("Accuracy", _ACCURACY, _pictures((partial(accuracy_curves, metrics, teacher), _CAPTIONS["accuracy"]))),
        Section("Timeline", _TIMELINE, _pictures((partial(timeline, metrics), _CAPTIONS["timeline"]))),
        Section(
            "Pictures by class and by round",
            "The first images of each class in the first batch of a round, as they are stored; none was picked.",
            grid + _pictures((partial(target_share_figure, metrics), _CAPTIONS["target_share"])),
        ),
        Section(
            "Loss terms",
            "What the generators minimised, term by term.",
            _pictures((partial(loss_curves, metrics), _CAPTIONS["loss"])),
        ),
        Section(
            "Feature distance by layer",
            "How far the images' feature statistics are from those that the teacher's BN layers keep of its "
            "training data.",
            _pictures((partial(distance_figure, metrics), _CAPTIONS["distance"])),
        ),
        Section(
            "Student",
            "Measured while it learned, on the synthetic images of the step.",
            _pictures((partial(student_curves, metrics), _CAPTIONS["student"])),
        ),
        Section(
            "Buffer and limiter",
            "The limiter ties how often images are drawn to how many join the buffer.",
            _pictures((partial(buffer_curves, metrics, asked), _CAPTIONS["buffer"])),
        ),
    ]


def _pictures(*wanted: tuple[Draw, str]) -> list[Picture]:
    pictures = []
    for draw, caption in wanted:
        wide, narrow = draw(WIDE), draw(NARROW)
        if wide is not None and narrow is not None:
            pictures.append(Picture(caption, _inline(wide), _inline(narrow)))
    return pictures


def _grid(figure: Figure) -> Picture:
    return Picture(_CAPTIONS["grid"], _data_uri(figure, "png", DPI))


def _inline(figure: Figure) -> str:
    drawing = _data_uri(figure, "svg", DPI)
    return drawing if len(drawing) <= MOST_SVG_BYTES else _data_uri(figure, "png", 1.3 * DPI)


def _data_uri(figure: Figure, kind: str, dpi: float) -> str:
    # As an image, a drawing keeps its ids to itself: those of two drawings in one page would clash.
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{media};base64,{base64.b64encode(file.getvalue()).decode()}"


_ACCURACY = (
    "The student never learns from real images; they only measure it: the validation split chooses the best round, the "
    "test split is what is reported. On synthetic images, what the teacher says they show counts as right."
)
_TIMELINE = (
    "Batches and the student's steps have the colour of their round; in round 0 there is no student to compete with."
)
_CAPTIONS = {
    "accuracy": "The student should come close to the teacher on real images, and the newest synthetic images should "
    "stay harder for it than the real ones where generators compete with it.",
    "timeline": "Bars of generators above bars of the student at the same time show that making images and learning "
    "overlap; a gap in a lane is waiting.",
    "grid": "Each column should show one class in recognisable variety, and later rounds should differ from round 0 "
    "where the student competes; a grey cell means that the batch has no such image.",
    "target_share": "Most images of each batch should be classified by the teacher as the target they were made for.",
    "loss": f"Each line is a batch ({MOST_CURVES} at most): terms should fall and level off, and the colours show "
    "how later rounds differ.",
    "distance": f"Each line is a round ({MOST_CURVES} at most): no layer should stand out by orders of magnitude, nor "
    "grow from round to round.",
    "student": "The loss should fall and the agreement with the teacher rise, with small set-backs where new images "
    "join.",
    "buffer": "Draws per insert should stay near what was asked for until the last batch has joined, after which they "
    "rise freely, and snapshots should not grow ever older.",
}
