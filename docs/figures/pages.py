"""Pages with figures in them: what stands between the comments, replaced by what the results say."""

import re
from pathlib import Path

from docs.figures import FIGURES
from docs.figures.text import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"<!-- figures: (?P<name>\S+) -->(?P<text>.*?)<!-- end -->", re.DOTALL)
MARK = re.compile(r"<!-- (figures:.*?|end) -->")


class PageError(Exception):
    """A comment of a page names no figure, or does not stand where it can."""


def name(page: Path) -> str:
    """The path of a page in the repository."""
    return str(page.relative_to(ROOT))


def filled(page: str) -> str:
    """The text of a page with all its figures as the results have them.

    Raises PageError for an unknown name, a comment without its counterpart, and one at the wrong place of a line.
    """
    if stray := MARK.search(BLOCK.sub("", page)):
        raise PageError(f"{stray[0]} has no counterpart")
    return BLOCK.sub(_filled, page)


def _filled(found: re.Match[str]) -> str:
    wanted, page = found["name"], found.string
    if wanted not in FIGURES:
        raise PageError(f"there is no figure {wanted}; docs/figures/ has {', '.join(sorted(FIGURES))}")
    if MARK.search(found["text"]):
        raise PageError(f"<!-- figures: {wanted} --> has no counterpart")
    text = FIGURES[wanted]()
    before = page[page.rfind("\n", 0, found.start()) + 1 : found.start()]
    after = page[found.end() :].partition("\n")[0]
    if text.startswith("|"):
        if before or after:
            raise PageError(f"{wanted} is a table, so each of its comments stands on a line of its own")
        text = f"\n\n{text}\n\n"
    elif not before.strip():
        # A line that begins with a comment is a block of HTML in Markdown, and ends the paragraph before it.
        raise PageError(f"{wanted} begins a line; move a word in front of it")
    return f"<!-- figures: {wanted} -->{text}<!-- end -->"
