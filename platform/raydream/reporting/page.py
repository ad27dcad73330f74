"""Self-contained pages: figures and tables in one HTML file, from which no request leaves."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from raydream.reporting.figures import DPI, NARROW, WIDE
from raydream.store.atomic import write_aside

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
    """A heading, a few words, a table and figures; it is left out where there is neither table nor figure.

    Attributes:
        title: the heading, in lower case.
        text: what was measured, and on what.
        pictures: in order.
        table: rows of text, the first of them the columns' names.
    """

    title: str
    text: str
    pictures: list[Picture]
    table: list[list[str]] | None = None


def write_page(path: Path, *, sections: list[Section], **content: Any) -> Path:
    """Write a page, aside and renamed.

    Args:
        sections: in order; the empty ones are left out.
        content: what else `report.html.j2` shows.

    Returns:
        the path.

    Raises:
        OSError: it may not be written.
    """
    environment = Environment(
        loader=PackageLoader("raydream", "reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shown = [section for section in sections if section.pictures or section.table]
    page = environment.get_template("report.html.j2").render(sections=shown, **content)
    write_aside(path, lambda aside: aside.write_bytes(page.encode("utf-8", "backslashreplace")))
    return path


def pictures(*wanted: tuple[Draw, str]) -> list[Picture]:
    """Figures with their captions, for wide and for narrow windows; those without rows are left out."""
    found = []
    for draw, caption in wanted:
        wide, narrow = draw(WIDE), draw(NARROW)
        if wide is not None and narrow is not None:
            found.append(Picture(caption, _inline(wide), _inline(narrow)))
    return found


def grid_picture(figure: Figure, caption: str) -> Picture:
    """A grid of images, pixel by pixel."""
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
