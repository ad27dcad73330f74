"""Self-contained pages: figures and tables in one HTML file that makes no requests."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from raydream.reporting.figures import DPI, NARROW, WIDE
from raydream.runs.journal import Entry, read_journal
from raydream.runs.run_folder import RunFolder
from raydream.runs.summary import Summary
from raydream.store.atomic import write_atomically

MOST_SVG_BYTES = 400_000
"""largest drawing in a page; a larger figure is embedded as a PNG"""

Draw = Callable[[float], Figure | None]
"""from a width in inches to a figure, or None where its rows are missing"""


@dataclass(frozen=True)
class Picture:
    """A figure in a page.

    Attributes:
        caption: one sentence: what the reader should see in it.
        source: data URI.
        narrow: data URI of the same figure drawn for a narrow window; None: the one above is scaled.
    """

    caption: str
    source: str
    narrow: str | None = None


@dataclass(frozen=True)
class Section:
    """A heading, a short text, a table and figures; left out without table and figure.

    Attributes:
        title: the heading, in lower case.
        text: the measurement and its data.
        pictures: in order.
        table: rows of text, the first of them the columns' names.
    """

    title: str
    text: str
    pictures: list[Picture]
    table: list[list[str]] | None = None


@dataclass(frozen=True)
class Page:
    """The content of `report.html.j2`.

    Attributes:
        title: the heading.
        run: name of the run's folder, below it.
        accuracies: the main figures: network, value, data.
        sections: sections in order; empty ones are left out.
        facts: name and text of each other figure.
        stages: each stage's name, seconds and share of the whole.
        repairs: time and text of each repair.
        config: the settings, as YAML.
        versions: of the libraries, by name.
        machine: the machine that computed it.
    """

    title: str
    run: str
    accuracies: Sequence[tuple[str, str, str]]
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    stages: Sequence[tuple[str, str, str]] = ()
    repairs: Sequence[tuple[str, str]] = ()
    config: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str | None = None


def page_of_run(folder: RunFolder, title: str, summary: Summary, **content: Any) -> Page:
    """Build the page of a completed run; `content` adds to the parts that all runs have.

    Raises:
        OSError: its configuration cannot be read.
    """
    return Page(
        title=title,
        run=folder.shown().rpartition("/")[2],
        stages=stage_rows(summary),
        repairs=repair_rows(read_journal(folder.journal)),
        config=folder.config.read_text(encoding="utf-8"),
        versions=summary.versions,
        machine=summary.machine,
        **content,
    )


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
        loader=PackageLoader("raydream", "reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    content = {each.name: getattr(page, each.name) for each in fields(page)}
    content["sections"] = [section for section in page.sections if section.pictures or section.table]
    text = environment.get_template("report.html.j2").render(**content)
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "backslashreplace")))
    return path


def pictures(*wanted: tuple[Draw, str]) -> list[Picture]:
    """Render figures with their captions, for wide and for narrow windows; those without rows are left out."""
    found = []
    for draw, caption in wanted:
        wide, narrow = draw(WIDE), draw(NARROW)
        if wide is not None and narrow is not None:
            found.append(Picture(caption, _inline(wide), _inline(narrow)))
    return found


def grid_picture(figure: Figure, caption: str) -> Picture:
    """Render a grid of images, pixel by pixel."""
    return Picture(caption, _data_uri(figure, "png", DPI))


def _inline(figure: Figure) -> str:
    drawing = _data_uri(figure, "svg", DPI)
    return drawing if len(drawing) <= MOST_SVG_BYTES else _data_uri(figure, "png", 1.3 * DPI)


def _data_uri(figure: Figure, kind: str, dpi: float) -> str:
    # As an image, a drawing keeps its ids to itself: those of two drawings in one page would clash.
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{media};base64,{base64.b64encode(file.getvalue()).decode()}"
