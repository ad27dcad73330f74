"""Self-contained pages: charts, images and tables in one HTML file that makes no requests.

All content goes through the template's autoescaping or, as JSON that the page's script reads, through `_json`. The one
script that the page's policy lets run is `report.js`, named by its SHA-256 digest; without it the page shows the same.
"""

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raydream.errors import DocumentError
from raydream.reporting.charts import Bars, Chart, Mosaic, Table, Timeline
from raydream.reporting.gallery import Gallery
from raydream.reporting.progress import time_text
from raydream.runs.catalogue import job_of
from raydream.runs.journal import Entry, read_journal
from raydream.runs.run_folder import RunFolder, read_config, read_marker
from raydream.runs.summary import Summary
from raydream.store.atomic import write_atomically
from raydream.store.folders import LocalFolder

PagePart = Chart | Timeline | Bars | Mosaic | Gallery
"""what a section shows"""


@dataclass(frozen=True)
class Section:
    """A heading, a short text, a table and charts; left out without table and chart.

    Attributes:
        title: the heading.
        text: the measurement and its data.
        parts: in order; None where there is nothing to show.
        table: below them.
    """

    title: str
    text: str
    parts: Sequence[PagePart | None] = ()
    table: Table | None = None

    @property
    def shown(self) -> list[PagePart]:
        return [part for part in self.parts if part is not None]


@dataclass(frozen=True)
class Page:
    """The content of `report.html.j2`.

    Attributes:
        title: the heading.
        run: name of the run's folder, below it.
        accuracies: the main figures: network, value, data.
        sections: sections in order; empty ones are left out.
        headline: the result in one sentence; empty: there is none.
        command: the command that repeats the run; empty: unknown.
        facts: name and text of each other figure.
        stages: each stage's name, seconds and share of the whole.
        repairs: time and text of each repair.
        config: the settings, as YAML.
        versions: of the libraries, by name.
        machine: the machine that computed it.
        filters: names of runs that the reader can hide, with their colors.
    """

    title: str
    run: str
    accuracies: Sequence[tuple[str, str, str]]
    sections: Sequence[Section]
    headline: str = ""
    command: str = ""
    facts: Sequence[tuple[str, str]] = ()
    stages: Sequence[tuple[str, str, str]] = ()
    repairs: Sequence[tuple[str, str]] = ()
    config: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str | None = None
    filters: Sequence[tuple[str, str]] = ()


def page_of_run(
    folder: RunFolder,
    title: str,
    summary: Summary,
    accuracies: Sequence[tuple[str, str, str]],
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
) -> Page:
    """Build the page of a completed run.

    Args:
        accuracies, facts, sections: see `Page`; the rest is the same for all runs.

    Raises:
        OSError: its configuration cannot be read.
    """
    return Page(
        title=title,
        run=folder.shown().rpartition("/")[2],
        accuracies=accuracies,
        sections=sections,
        headline=headline_of(summary),
        command=command_of(folder),
        facts=facts,
        stages=stage_rows(summary),
        repairs=repair_rows(read_journal(folder.journal)),
        config=folder.config.read_text(encoding="utf-8"),
        versions=summary.versions,
        machine=summary.machine,
    )


def headline_of(summary: Summary) -> str:
    """Return a run's result, the teacher's, and its cost in one sentence; empty where nothing was measured."""
    values = summary.as_json()
    share = {name: values[name] for name in ("student_accuracy", "pruned_accuracy") if _is_number(values.get(name))}
    if share:
        (name, value), *_ = share.items()
        sentence = f"{name.partition('_')[0].capitalize()} {_percent(value, values)}"
    elif summary.main is not None and math.isfinite(summary.main.value):
        sentence = str(summary.main)[:1].upper() + str(summary.main)[1:]
    else:
        return ""
    if share and _is_number(values.get("teacher_accuracy")):
        sentence += f" (teacher {_percent(values['teacher_accuracy'], values)})"
    if _is_number(values.get("images")):
        sentence += f", from {values['images']:,} images"
    wall = summary.wall_s
    return sentence + (f", in {wall:,.0f} s" if 0 < wall < 600 else f", in {time_text(wall)}" if wall >= 600 else "")


def _percent(share: float, values: Mapping[str, Any]) -> str:
    images = values.get("test_images")
    return f"{100 * share:.{1 if not images or images < 1000 else 2}f} %"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def command_of(folder: RunFolder) -> str:
    """Return the command that repeats a run from its configuration; empty where its job is unknown."""
    place = LocalFolder(folder.path)
    try:
        noted = read_marker(place).job
    except (OSError, DocumentError):  # the report of a folder that was put together by hand
        noted = ""
    try:
        job = job_of(read_config(place), noted)
    except (OSError, DocumentError):
        job = None
    return f"raydream {job} --config {shlex.quote(folder.shown('config.yaml'))}" if job else ""


def repair_rows(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Return time and text of each entry of a journal."""
    return [(f"{datetime.fromtimestamp(entry.moment):%Y-%m-%d %H:%M:%S}", entry.text) for entry in entries]


def stage_rows(summary: Summary) -> list[tuple[str, str, str]]:
    """Return each stage of a run, its seconds, and its share of the wall time."""
    wall = summary.wall_s
    return [
        (stage, f"{seconds:,.1f} s", f"{100 * seconds / wall:.0f} %" if wall else "")
        for stage, seconds in summary.seconds_by_stage.items()
        if math.isfinite(seconds)
    ]


def write_page(path: Path, page: Page) -> Path:
    """Write a page, through a temporary file.

    Returns:
        the path.

    Raises:
        OSError: it cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("raydream", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data"] = _json
    script, style = _resource("report.js"), _resource("report.css")
    content = {each.name: getattr(page, each.name) for each in fields(page)}
    content["sections"] = [section for section in page.sections if section.shown or section.table]
    content |= {"script": Markup(script), "style": Markup(style), "policy": policy(script)}
    text = environment.get_template("report.html.j2").render(**content)
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "backslashreplace")))
    return path


def policy(script: str) -> str:
    """Return the content security policy of a page that lets one script run, and nothing be loaded."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'")
    return "; ".join((*rules, "base-uri 'none'", "form-action 'none'"))


def _resource(name: str) -> str:
    return (resources.files("raydream.reporting") / name).read_text(encoding="utf-8")


def _json(value: object) -> Markup:
    """Return a value as JSON in which nothing ends, or begins, an element of the page."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
