"""Reports as a reader uses them: pointing, hiding, filtering, sorting, downloading; and the same without scripts."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.test_figures import make_metrics, make_run
from tests.reporting.test_report import CONFIG, HOSTILE, SUMMARY, DistillSummary, local_run, read, write_report

pytestmark = pytest.mark.browser


@pytest.fixture
def show(browser: Any) -> Iterator[Any]:
    """Opens a page; at its end nothing may have been requested, and no error be in the console."""
    found: list[str] = []
    contexts = []

    def opened(path: Path, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: found.append(said.text))
        page.on("pageerror", lambda error: found.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else found.append(asked.url),
        )
        page.goto(path.as_uri(), wait_until="load")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert found == []


def section(page: Any, title: str) -> Any:
    heading = page.locator("h2", has_text=title).first
    return page.locator("section", has=heading).first


def visible(locator: Any) -> int:
    return int(
        locator.evaluate_all(
            "all => all.filter(each => each.checkVisibility() && getComputedStyle(each).display !== 'none').length"
        )
    )


def rows_of(download: Any) -> list[list[str]]:
    return [*csv.reader(io.StringIO(Path(download.path()).read_text(encoding="utf-8")))]


def test_pointing_at_a_curve_shows_its_value(show, reports):
    page = show(reports["distill"])
    plot = section(page, "Accuracy").locator(".plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert visible(page.locator(".tip")) == 0
    page.mouse.move(box["x"] + box["width"] * 0.96, box["y"] + box["height"] * 0.05)
    told = page.locator(".tip").inner_text().splitlines()
    assert told[0] in ("student, real test images", "student, real validation images", "teacher, real test images")
    assert told[1] == "distillation step: 200" and told[2].startswith("accuracy: 9") and told[2].endswith(" %")
    page.mouse.move(5, 5)
    assert visible(page.locator(".tip")) == 0


def test_pointing_at_a_bar_and_at_a_dot_shows_what_it_is(show, reports):
    page = show(reports["distill"])
    section(page, "Timeline").locator(".lane", has_text="generator-0").locator("rect").first.hover()
    assert page.locator(".tip").inner_text() == "round 0: 5.0 to 12.5 s"
    plot = section(page, "Images").locator(".plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 20)
    assert page.locator(".tip").inner_text().splitlines()[1:] == ["round: 0", "images on target: 90 %", "r0000-b0000"]


def test_a_legend_hides_its_line_and_shows_it_again(show, reports):
    page = show(reports["distill"])
    part = section(page, "Accuracy")
    key = part.locator(".key", has_text="validation")
    line = part.locator('g[data-name="student, real validation images"]')
    key.click()
    assert key.get_attribute("aria-pressed") == "false" and visible(line) == 0 and visible(part.locator("g")) == 3
    key.press("Enter")
    assert visible(line) == 1


def test_filters_hide_images(show, reports):
    page = show(reports["distill"])
    part = section(page, "Images")
    images = part.locator("button.one")
    count = images.count()
    part.get_by_label("class", exact=True).select_option("3")
    some = visible(images)
    assert 0 < some < count and part.locator(".controls").inner_text().endswith(f"{some} of {count} images")
    assert visible(part.locator(".class")) == 1
    part.get_by_label("class", exact=True).select_option("all")
    part.get_by_label("show", exact=True).select_option("real")
    assert visible(images) == visible(part.locator(".one.real")) == 20
    part.get_by_label("show", exact=True).select_option("synthetic")
    part.get_by_label("round", exact=True).select_option("1")
    assert 0 < visible(images) < count - 20
    part.get_by_label("round", exact=True).select_option("all")
    part.get_by_label("show", exact=True).select_option("off target")
    assert visible(images) == part.locator(".one.missed").count()


def test_clicking_an_image_shows_what_both_networks_say(show, reports):
    page = show(reports["distill"])
    section(page, "Images").locator(".one:not(.real)").first.click()
    dialog = page.locator("dialog")
    text = dialog.inner_text()
    assert text.startswith("class 0, round 0") and "teacher's probabilities" in text and "student's" in text
    assert dialog.locator("meter").count() == 10
    assert dialog.locator("img").bounding_box()["width"] >= 200
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


FAR_AWAY = """() => {
    const space = document.createElement('div'), copy = document.querySelector('img.image').cloneNode();
    space.style.height = '50000px';
    copy.src += '#far';
    document.body.append(space, copy);
    return copy.getBoundingClientRect().height;
}"""


def test_an_image_keeps_its_place_before_it_is_loaded(show, reports):
    assert show(reports["distill"]).evaluate(FAR_AWAY) >= 50


def test_a_table_sorts_both_ways_with_empty_cells_last(show, reports):
    page = show(reports["comparison"])
    table = section(page, "Final figures").locator("table")

    def names() -> list[str]:
        return [text.split()[0] for text in table.locator("tbody th").all_inner_texts()]

    head = table.locator("thead button", has_text="student")
    first = head.first
    assert names() == ["one", "two", "three", "four"]
    first.click()
    assert names() == ["two", "one", "three", "four"]
    first.click()
    assert names() == ["three", "one", "two", "four"]
    table.locator("thead button").first.click()
    assert names() == ["four", "one", "three", "two"]
    assert table.locator("tr.best").get_attribute("data-name") == "two"


def test_the_first_column_stays_where_a_table_is_scrolled(show, reports):
    page = show(
        reports["comparison"],
    )
    table = section(page, "Final figures").locator(".scroll")
    cell = table.locator("tbody th").first
    before = cell.bounding_box()["x"]
    table.evaluate("each => { each.scrollLeft = 400; }")
    assert table.evaluate("each => each.scrollLeft") > 100
    assert cell.bounding_box()["x"] == pytest.approx(before, abs=2)


def test_a_comparison_is_filtered_live(show, reports):
    page = show(reports["comparison"])
    curves, pictures = section(page, "Curves over"), section(page, "Pictures")
    lines = curves.locator("g[data-name]").count()
    page.get_by_label("filter runs").fill("o")  # one, two, four
    assert visible(curves.locator("g[data-name]")) < lines and visible(curves.locator('g[data-name="three"]')) == 0
    assert visible(pictures.locator("tbody tr")) == 3
    assert visible(section(page, "Final").locator("tbody tr")) == 3
    page.locator('.filters [data-run="two"]').click()
    assert visible(pictures.locator("tbody tr")) == 2
    page.locator('.filters [data-run="two"]').click()
    page.get_by_label("filter runs").fill("")
    assert visible(curves.locator("g[data-name]")) == lines


def test_runs_of_several_seeds_have_a_band(show, reports):
    page = show(reports["comparison"])
    part = section(page, "Over seeds")
    assert part.locator("path.band").count() >= 2
    plot = part.locator(".plot").first
    plot.scroll_into_view_if_needed()
    plot.hover()
    assert "all: " in page.locator(".tip").inner_text()


def test_downloads_have_rows(show, reports):
    page = show(reports["distill"])
    with page.expect_download() as caught:
        section(page, "Accuracy").locator(".tool").click()
    rows = rows_of(caught.value)
    assert caught.value.suggested_filename == "small-distill-accuracy.csv" or caught.value.suggested_filename.endswith(
        "accuracy.csv"
    )
    assert rows[0] == ["panel", "name", "x", "y", "low", "high"] and len(rows) == 1 + 3 * 4 + 2
    assert ["accuracy", "teacher, real test images", "50", "0.978", "", ""] in rows
    with page.expect_download() as caught:
        section(page, "Images").locator(".gallery .tool").click()
    rows = rows_of(caught.value)
    assert rows[0][:3] == ["class", "round", "on target"] and len(rows) == 1 + page.locator("button.one").count()
    with page.expect_download() as caught:
        page.locator("text=all figures as JSON").click()
    whole = json.loads(Path(caught.value.path()).read_text(encoding="utf-8"))
    assert whole["figures"]["images"] == "1,234" and whole["sections"][0]["title"] == "Accuracy"


def test_a_table_that_is_filtered_is_downloaded_as_shown(show, reports):
    page = show(reports["comparison"])
    page.get_by_label("filter runs").fill("three")
    with page.expect_download() as caught:
        section(page, "Final figures").locator(".tool").click()
    rows = rows_of(caught.value)
    assert len(rows) == 2 and rows[0][:2] == ["run", "student accuracy"] and rows[1][:2] == ["three", "70.0 %"]


def test_without_scripts_all_is_there_and_no_control_is(show, reports):
    for name in ("distill", "comparison"):
        page = show(reports[name], java_script_enabled=False)
        counts = {
            what: page.locator(what).count() for what in ("path.line", "img", "table.rows tr", "button, input, select")
        }
        assert counts["path.line"] > 5 and counts["img"] > 20 and counts["button, input, select"] == 0
        assert page.locator(".filters").count() == page.locator(".filters[hidden]").count()


def test_charts_follow_dark_mode(show, reports):
    parts = {"path.line >> nth=1": "stroke", ".tick >> nth=0": "color", "figure": "color"}
    of = "(each, name) => getComputedStyle(each)[name]"
    light, dark = (section(show(reports["distill"], color_scheme=light), "Accuracy") for light in ("light", "dark"))
    for part, name in parts.items():
        assert light.locator(part).evaluate(of, name) != dark.locator(part).evaluate(of, name), part


@pytest.mark.parametrize("name", ["distill", "comparison", "continual", "search"])
def test_text_can_be_read_on_a_phone(browser, reports, name):
    page = browser.new_page(viewport={"width": 420, "height": 900})
    page.goto(reports[name].as_uri())
    small = page.evaluate("""() => [...document.querySelectorAll('main *')].filter(each =>
        [...each.childNodes].some(child => child.nodeType === 3 && child.textContent.trim()) && each.checkVisibility()
        && parseFloat(getComputedStyle(each).fontSize) < 11.9).map(each => each.outerHTML.slice(0, 80))""")
    overlapping = page.evaluate("""() => [...document.querySelectorAll('.plot:not(.upright)')].filter(plot => {
        const boxes = [...plot.querySelectorAll('.tick.x')].map(each => each.getBoundingClientRect());
        return boxes.some((box, index) => index && box.left < boxes[index - 1].right);
    }).map(plot => plot.parentElement.textContent.trim().slice(0, 60))""")
    page.close()
    assert small == [] and overlapping == []


def test_hostile_strings_run_nothing(show, tmp_path):
    metrics = make_metrics(rounds=1)
    metrics["name"] = metrics["name"].replace({"loss/tv": f"loss/{HOSTILE}", "distance/1": f"distance/{HOSTILE}"})
    metrics["source"] = metrics["source"].replace({"generator-1": HOSTILE})
    summary = SUMMARY | dict.fromkeys(("method", "data", "machine"), HOSTILE)
    run = make_run(tmp_path / "run", metrics, summary, CONFIG | {"experiment": HOSTILE})
    page = show(write_report(local_run(run), read(DistillSummary, summary)))
    page.on("dialog", lambda opened: pytest.fail("a script of the run ran"))
    plot = section(page, "Feature distance").locator(".plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.05 * box["width"], box["y"] + 0.5 * box["height"])
    assert HOSTILE.split("$")[0].strip() in page.locator(".tip").inner_text()
    assert page.locator("main script:not([type]), .tip *, img[src=x]").count() == 0


def test_the_policy_lets_no_other_script_run(browser, reports, tmp_path):
    text = reports["distill"].read_text()
    added = text.replace("</main>", "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'></main>")
    (tmp_path / "page.html").write_text(added)
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda each: said.append(each.text))
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("window.ran") is None and any("Content Security Policy" in each for each in said)
    page.close()
