"""Reports and docs as Chromium shows them: whole, quiet, without a request, in any light and at any width.

`BROWSER_PICTURES=DIR` keeps a picture of each, to be looked at.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.browser.pages import REPORTS

pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
DOCS = sorted(each for each in (ROOT / "docs" / "_build").rglob("*.html") if "_modules" not in each.parts)
"""all pages but the listings of source code"""
WIDTHS = {"narrow": 360, "wide": 1280}
INSIDE = ("file:", "data:", "blob:", "about:")

WITHOUT_ROOM = """() => [...document.body.querySelectorAll('*')].filter(
    each => each.offsetParent && each.getBoundingClientRect().right > innerWidth + 1
).slice(0, 3).map(each => each.outerHTML.slice(0, 120))"""
"""the first elements that reach beyond the window, to be told where the page does"""
DECODED = """() => Promise.all([...document.images].map(each => {
    each.loading = 'eager';
    return each.decode().catch(() => null);
}))"""
LUMINANCE = """() => {
    const of = color => color.match(/[\\d.]+/g).slice(0, 3).reduce((sum, each) => sum + Number(each), 0) / 765;
    const style = getComputedStyle(document.body);
    return [of(style.backgroundColor), of(style.color)];
}"""


def problems(browser: Any, path: Path, light: str, width: int) -> list[str]:
    """What is wrong with a page as it is shown; nothing, where all is well."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=light)
    found: list[str] = []
    page.on(
        "console", lambda said: found.append(f"console: {said.text}") if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("request", lambda asked: None if asked.url.startswith(INSIDE) else found.append(f"request: {asked.url}"))
    page.on("requestfailed", lambda asked: found.append(f"failed: {asked.url[:100]}"))
    try:
        page.goto(path.as_uri(), wait_until="load")
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        page.evaluate(DECODED)
        blank = page.evaluate("[...document.images].filter(each => !each.naturalWidth).map(each => each.alt)")
        found += [f"no picture: {alt}" for alt in blank]
        if page.evaluate("Math.max(document.body.scrollWidth, document.documentElement.scrollWidth) > innerWidth"):
            found += [f"too wide: {element}" for element in page.evaluate(WITHOUT_ROOM) or ["something"]]
        ground, ink = page.evaluate(LUMINANCE)
        if (ground < 0.5) != (light == "dark") or abs(ground - ink) < 0.5:
            found.append(f"in {light}: ground {ground:.2f}, ink {ink:.2f}")
        if pictures := os.environ.get("BROWSER_PICTURES"):
            name = f"{path.parent.name}-{path.stem}-{light}-{width}.png"
            page.screenshot(path=str(Path(pictures) / name), full_page=True)
    finally:
        page.close()
    return found


@pytest.mark.parametrize("light", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_shown_as_it_should_be(browser, reports, name, width, light):
    assert problems(browser, reports[name], light, WIDTHS[width]) == []
    assert "<figure" in reports[name].read_text()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT / "docs" / "_build")))
def test_a_page_of_the_docs_is_shown_as_it_should_be(browser, path):
    for light, width in (("light", 1280), ("dark", 360)):
        assert problems(browser, path, light, width) == []


def test_the_docs_are_built():
    assert len(DOCS) > 15, "make docs"


BAD = {
    "request: http": '<img alt="far" src="http://127.0.0.1:9/far.png">',
    "console": "<script>console.error('no')</script>",
    "script": "<script>throw new Error('no')</script>",
    "no picture": '<img alt="gone" src="gone.png">',
    "too wide": '<div style="width: 2000px">wide</div>',
    "in dark": "<p>always light</p>",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_page_that_is_broken_is_found(browser, kind, tmp_path):
    style = "" if kind == "in dark" else '<meta name="color-scheme" content="dark">'
    body = "background: white; color: black" if kind == "in dark" else "background: black; color: white"
    (tmp_path / "page.html").write_text(f'<!DOCTYPE html>{style}<body style="{body}">{BAD[kind]}')
    assert any(problem.startswith(kind) for problem in problems(browser, tmp_path / "page.html", "dark", 360))
