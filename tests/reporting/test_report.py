"""The report's page: whole, self-contained, and true to the run folder that it was made from."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raydream.errors import ShardError
from raydream.reporting.report import write_report
from raydream.runs.journal import Journal
from raydream.runs.summaries import DistillSummary
from raydream.runs.summary import Summary, read
from tests.reporting.test_figures import make_metrics, make_run
from tests.tiny import local_run

SUMMARY = {
    "teacher_accuracy": 0.978,
    "student_accuracy": 0.954,
    "student_accuracy_best": 0.958,
    "student_accuracy_best_step": 1150,
    "test_images": 500,
    "rounds": 3,
    "generators": 2,
    "images": 1234,
    "distillation_steps": 4321,
    "wall_s": 160.0,
    "seconds_by_stage": {"teacher": 16.0, "rounds": 144.0},
    "overlap_share": 0.8125,
    "lockstep": False,
    "method": "adaptive",
    "seed": 17,
    "teacher_fingerprint": "f00dcafe",
    "data": "digits",
    "versions": {"torch": "2.11.0", "ray": "2.60.1"},
    "machine": "x86_64, 2 CPUs",
}
CONFIG = {"experiment": "small", "seed": 17, "buffer": {"samples_per_insert": 50.0}}
VOID = {"meta", "link", "img", "source", "br", "hr", "input"}
SECTIONS = [
    "Accuracy",
    "Timeline",
    "Pictures by class and by round",
    "Loss terms",
    "Feature distance by layer",
    "Student",
    "Buffer and limiter",
]


class Page(HTMLParser):
    """Reads a page; raises where its tags do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def sources(self) -> list[str]:
        """What the page shows or links to."""
        names = ("src", "srcset", "href", "data", "poster", "action")
        return [value or "" for _, attributes in self.tags for name, value in attributes.items() if name in names]


def report(folder: Path, metrics: pd.DataFrame | None = None, **changes: Any) -> tuple[str, Page]:
    """Write a report; `changes` to the summary, None to leave a figure out."""
    summary = {key: value for key, value in {**SUMMARY, **changes}.items() if value is not None}
    run = make_run(folder / "run", make_metrics() if metrics is None else metrics, summary, CONFIG)
    path = write_report(local_run(run), read(DistillSummary, summary))
    assert path == run / "report.html"
    assert not list(run.glob(".*"))
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return report(tmp_path_factory.mktemp("full"))


def test_page_is_whole_and_small(full: tuple[str, Page]) -> None:
    text, page = full
    assert text.startswith("<!DOCTYPE html>")
    assert [heading for heading in page.headings if heading in SECTIONS] == SECTIONS
    assert len(text) < 3_000_000


def test_nothing_leaves_the_page(full: tuple[str, Page]) -> None:
    text, page = full
    assert not re.search(r"https?://", text)
    assert all(source.startswith("data:") for source in page.sources())
    assert not re.search(r"@import|url\(|<script|javascript:", text)
    policies = [attributes["content"] or "" for tag, attributes in page.tags if "http-equiv" in attributes]
    assert any("default-src 'none'" in policy for policy in policies)


def test_each_figure_opens_and_has_a_caption(full: tuple[str, Page]) -> None:
    text, page = full
    images = re.findall(r'data:image/(png|svg\+xml);base64,([^"]+)"', text)
    assert len(images) == 15  # seven figures at two widths, and the picture grid
    for kind, data in images:
        content = base64.b64decode(data, validate=True)
        if kind == "png":
            assert np.asarray(Image.open(io.BytesIO(content)).convert("L")).std() > 0
        else:
            drawing = ElementTree.fromstring(content)
            links = [v for element in drawing.iter() for key, v in element.attrib.items() if key.endswith("href")]
            assert all(link.startswith(("#", "data:")) for link in links)
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(attributes["alt"] for attributes in shown)
    assert len(shown) == sum(tag == "figcaption" for tag, _ in page.tags) == 8


@pytest.mark.parametrize(
    "words",
    [
        "97.8 % test split of digits, 500 real images; 489 right",
        "95.4 % test split of digits, 500 real images; at the end of the run; 477 right",
        "student, best (step 1,150) 95.8 %",
        "; chosen on the validation split; 479 right",
        "images 1,234",
        "rounds 3",
        "distillation steps 4,321",
        "generators 2",
        "wall time 160.0 s",
        "(overlap) 81.2 %",
        "teacher 16.0 s 10 %",
        "rounds 144.0 s 90 %",
        "method adaptive",
        "run seed 17",
        "f00dcafe",
        "torch 2.11.0",
        "ray 2.60.1",
        "machine x86_64, 2 CPUs",
        "samples_per_insert: 50.0",
    ],
)
def test_numbers_of_the_summary_appear(full: tuple[str, Page], words: str) -> None:
    assert words in full[1].text


HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=y> $\\frac{ {{ 7 * 7 }}"


def test_hostile_strings_are_shown_and_not_run(tmp_path: Path) -> None:
    metrics = make_metrics(rounds=1)
    metrics["name"] = metrics["name"].replace({"loss/tv": f"loss/{HOSTILE}", "distance/1": f"distance/{HOSTILE}"})
    metrics["source"] = metrics["source"].replace({"generator-1": HOSTILE})
    metrics["name"] = metrics["name"].replace({"span/start": f"span/{HOSTILE}"})
    summary = dict.fromkeys(("method", "data", "machine", "teacher_fingerprint"), HOSTILE)
    summary |= {"versions": {HOSTILE: HOSTILE}, "seconds_by_stage": {HOSTILE: 1.0}}
    run = make_run(tmp_path / "run", metrics, {**SUMMARY, **summary}, {**CONFIG, "experiment": HOSTILE})
    Journal(run / "journal.jsonl", print).note(HOSTILE)
    written = write_report(local_run(run), read(DistillSummary, {**SUMMARY, **summary}))
    text = written.read_text(encoding="utf-8")
    page = Page(text)
    assert "<script" not in text
    assert "onerror" not in {name for _, attributes in page.tags for name in attributes}
    assert all(source.startswith("data:") for source in page.sources())
    assert page.text.count(" ".join(HOSTILE.split())) >= 8


MISSING = {"loss/": "Loss terms", "student/": "Student", "distance/": "Feature distance by layer"}


def test_missing_metrics_leave_their_figures_out_and_no_others(tmp_path: Path) -> None:
    metrics = make_metrics(rounds=1)
    _, page = report(tmp_path, metrics[~metrics["name"].str.startswith(tuple(MISSING))])
    left = [section for section in SECTIONS if section not in MISSING.values()]
    assert [heading for heading in page.headings if heading in SECTIONS] == left


def test_a_run_that_measured_nothing_still_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_metrics().iloc[:0], {}, {})
    for shard in (run / "images").iterdir():
        shard.unlink()
    page = Page(write_report(local_run(run), Summary()).read_text(encoding="utf-8"))
    assert not set(page.headings) & set(SECTIONS)
    assert "No accuracy" in page.text
    assert "%" not in page.text


def test_what_was_mended_is_told_and_nothing_where_nothing_was(tmp_path: Path, full: tuple[str, Page]) -> None:
    heading = "What happened on the way"
    assert heading not in full[1].headings
    run = make_run(tmp_path / "run", make_metrics().iloc[:0], SUMMARY, CONFIG)
    Journal(run / "journal.jsonl", print).note("generator 1 was taken out")
    page = Page(write_report(local_run(run), read(DistillSummary, SUMMARY)).read_text(encoding="utf-8"))
    assert heading in page.headings and "generator 1 was taken out" in page.text


@pytest.mark.parametrize("value", [None, float("nan")])
def test_an_accuracy_that_is_no_number_is_left_out(tmp_path: Path, value: object) -> None:
    _, page = report(tmp_path, make_metrics().iloc[:0], student_accuracy=value)
    assert "student, last" not in page.text
    assert "student, best" in page.text


def test_accuracies_on_many_images_have_two_decimals(tmp_path: Path) -> None:
    _, page = report(tmp_path, make_metrics().iloc[:0], test_images=10_000, teacher_accuracy=0.9178)
    assert "91.78 % test split of digits, 10,000 real images; 9,178 right" in page.text


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_metrics().iloc[:0], SUMMARY, CONFIG)
    (run / "images" / "r0000-b0000.parquet").write_bytes(b"damaged")
    with pytest.raises(ShardError, match="r0000-b0000"):
        write_report(local_run(run), read(DistillSummary, SUMMARY))
    assert not (run / "report.html").exists()
