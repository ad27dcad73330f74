"""The figures of README and docs are those of the results, and `make figures` writes them."""

import json
import re

import pytest
from markdown_it import MarkdownIt

from docs.figures import FIGURES
from docs.figures.__main__ import main
from docs.figures.pages import BLOCK, MARK, PAGES, PageError, filled, name
from docs.figures.text import mean, number, percent, table
from raydream.reproduction.results import shown
from raydream.runs.summaries import ReproduceSummary
from raydream.runs.summary import read

TABLE = next(each for each in FIGURES if FIGURES[each]().startswith("|"))
PHRASE = next(each for each in FIGURES if not FIGURES[each]().startswith("|"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_has_the_figures_of_the_results(page):
    """Where this fails after new results: `make figures`."""
    text = page.read_text(encoding="utf-8")
    assert text == filled(text)


def test_every_figure_stands_in_a_page():
    used = {found["name"] for page in PAGES for found in BLOCK.finditer(page.read_text(encoding="utf-8"))}
    assert used == set(FIGURES)


MADE_BY_RUNS = re.compile(r"docs/results/table_\d/table\.md")


@pytest.mark.parametrize("page", [page for page in PAGES if not MADE_BY_RUNS.fullmatch(name(page))], ids=name)
def test_no_interval_is_written_by_hand(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    assert re.findall(r"[\d.]+ ± [\d.]+(?: %)?", text) == []


@pytest.mark.parametrize("page", [page for page in PAGES if MADE_BY_RUNS.fullmatch(name(page))], ids=name)
def test_a_table_of_the_paper_has_the_figures_of_its_summary(page):
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    cells = {(row[0], column): cell for row in rows for column, cell in zip(head, row, strict=True)}
    told = read(ReproduceSummary, json.loads(page.with_name("summary.json").read_text(encoding="utf-8"))).figures
    expected = {
        (row.replace("_", " "), figure.replace("_", " ")): shown(figure, value)
        for figure, values in told.items()
        for row, value in values.items()
    }
    assert expected and {place: cells[place] for place in expected} == expected
    assert len({row for row, _ in expected}) == sum(bool(row[1]) for row in rows), "no row is by hand"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_markdown_reads_each_table_as_one_and_no_sentence_as_html(page):
    read = MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
    inner = [each.content.strip() for each in read if each.type == "html_block"]
    tables = [each for each in inner if each.startswith("<!-- figures")]
    assert [each for each in inner if not MARK.fullmatch(each)] == ["<!-- run -->"] * inner.count("<!-- run -->")
    opened = [at for at, each in enumerate(read) if each.type == "html_block" and each.content.strip() in tables]
    assert [read[at + 1].type for at in opened] == ["table_open"] * len(tables)


def mark(figure: str, text: str) -> str:
    return f"<!-- figures: {figure} -->{text}<!-- end -->"


def test_what_is_wrong_in_a_page_is_written_again_and_all_else_stays():
    page = f"before\n\n{mark(TABLE, ' wrong ')}\n\nand {mark(PHRASE, 'wrong')}, after\n"
    written = mark(TABLE, f"\n\n{FIGURES[TABLE]()}\n\n")
    expected = f"before\n\n{written}\n\nand {mark(PHRASE, FIGURES[PHRASE]())}, after\n"
    assert filled(page) == expected
    assert filled(expected) == expected


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (mark("nothing", "1"), "there is no figure nothing"),
        (f"a <!-- figures: {PHRASE} -->1", "has no counterpart"),
        ("a 1<!-- end -->", "has no counterpart"),
        (f"a <!-- figures: {PHRASE} --> b {mark(PHRASE, '1')}", "has no counterpart"),
        (f"a\n{mark(PHRASE, '1')} b", "begins a line"),
        (f"a\n  {mark(PHRASE, '1')} b", "begins a line"),
        (f"a {mark(TABLE, '1')}", "on a line of its own"),
        (f"{mark(TABLE, '1')} b", "on a line of its own"),
    ],
)
def test_a_comment_that_is_wrong_is_refused(page, words):
    with pytest.raises(PageError, match=words):
        filled(page)


def test_make_figures_writes_pages_that_differ_and_refuses_wrong_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("docs.figures.pages.ROOT", tmp_path)
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    monkeypatch.setattr("docs.figures.__main__.PAGES", [good, bad])
    good.write_text(f"a {mark(PHRASE, 'wrong')}", encoding="utf-8")
    bad.write_text("no figures", encoding="utf-8")
    assert main() == 0
    assert good.read_text(encoding="utf-8") == f"a {mark(PHRASE, FIGURES[PHRASE]())}"
    assert capsys.readouterr().out == "good.md: figures rewritten\n"
    bad.write_text("a <!-- end -->", encoding="utf-8")
    assert main() == 1
    assert "error: bad.md: <!-- end --> has no counterpart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (0.2245, 4, "0.2245"),
        (22.45, 1, "22.5"),
        (100 * 0.2245, 1, "22.5"),
        (-11.849999999999998, 1, "−11.9"),
        (2.5, 0, "3"),
        (12345.6, 0, "12,346"),
        (-0.02, 1, "0.0"),
        (1e-17, 1, "0.0"),
    ],
)
def test_numbers_are_rounded_as_by_hand(value, digits, shown):
    assert number(value, digits) == shown


def test_a_mean_of_one_run_has_no_interval():
    assert mean({"mean": 0.5, "interval": float("nan")}) == "50.0 %"
    assert mean({"mean": 0.5, "spread": None}) == "50.0 %"
    assert mean({"mean": -0.004, "interval": 0.0123}, unit="", signed=True) == "−0.4 ± 1.2"
    assert percent(0.125, 0) == "13 %"


def test_a_table_is_markdown():
    assert table("a | b", [["1", ""]]) == "| a | b |\n| --- | --- |\n| 1 |  |"
