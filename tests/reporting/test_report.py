"""The report's page: whole, self-contained, and true to the run folder that it was made from."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import raydream.reporting
from raydream.config import DistillConfig
from raydream.config.conversion import as_dict
from raydream.errors import ShardError
from raydream.reporting.page import _json, command_of, headline_of
from raydream.reporting.report import write_report
from raydream.runs.journal import Journal
from raydream.runs.run_folder import begin
from raydream.runs.summaries import DistillSummary, TrainSummary
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
    "Images",
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

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))  # of SVG

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if not {"style", "script"} & {*self.open}:
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


def check_closed(text: str, page: Page) -> None:
    """Nothing in the page reaches beyond it, and no script but the package's own may run."""
    assert not re.search(r"https?://", text)
    assert all(source.startswith("data:") for source in page.sources())
    assert not re.search(r"@import|url\(|javascript:", text)
    (rule,) = (attributes["content"] or "" for tag, attributes in page.tags if "http-equiv" in attributes)
    rules = dict(each.split(" ", 1) for each in rule.split("; "))
    script = (Path(raydream.reporting.__file__).parent / "report.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["default-src"] == "'none'" and rules["script-src"] == f"'sha256-{digest}'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert text.count(f"<script>{script}</script>") == 1
    assert {attributes.get("type") for tag, attributes in page.tags if tag == "script"} <= {None, "application/json"}
    assert sum(tag == "script" and not attributes for tag, attributes in page.tags) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_nothing_leaves_the_page(full: tuple[str, Page]) -> None:
    check_closed(*full)


def test_each_chart_is_drawn_and_its_data_can_be_read(full: tuple[str, Page]) -> None:
    text, page = full
    figures = [attributes["class"] for tag, attributes in page.tags if tag == "figure"]
    assert [str(each).rpartition(" ")[2] for each in figures] == [
        "chart", "timeline", "gallery", "chart", "chart", "chart", "chart", "chart"
    ]  # fmt: skip
    assert sum(tag == "figcaption" for tag, _ in page.tags) == len(figures)
    blocks = [json.loads(block) for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)]
    assert len(blocks) == 7 and all(blocks)
    loss = blocks[4]["panels"][0]
    assert loss["title"] == "feature distance (eq. 4)" and len(loss["lines"][0]["x"]) == 5
    paths = [attributes["d"] for tag, attributes in page.tags if tag == "path"]
    assert len(paths) > 40 and all(paths) and not re.search("nan|inf", " ".join(map(str, paths)))


def test_each_image_can_be_opened_and_is_described(full: tuple[str, Page]) -> None:
    _, page = full
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(shown) == 4 * 2 * 10  # of each round and class
    for attributes in shown:
        source = str(attributes["src"]).removeprefix("data:image/png;base64,")
        assert np.asarray(Image.open(io.BytesIO(base64.b64decode(source, validate=True)))).std() > 0
        assert re.fullmatch(r"class \d, round \d; the teacher names \d \(\d+%\)", str(attributes["alt"]))


HEADLINES = [
    ({}, "Student 95.4 % (teacher 97.8 %), from 1,234 images, in 160 s"),
    ({"test_images": 10_000}, "Student 95.40 % (teacher 97.80 %), from 1,234 images, in 160 s"),
    ({"teacher_accuracy": None, "wall_s": 7200.0}, "Student 95.4 %, from 1,234 images, in 2 h 0 min"),
    ({"student_accuracy": None, "wall_s": 0.0}, ""),
]


@pytest.mark.parametrize(("changes", "sentence"), HEADLINES)
def test_the_first_line_is_the_result(changes: dict[str, Any], sentence: str) -> None:
    values = {name: value for name, value in (SUMMARY | changes).items() if value is not None}
    assert headline_of(read(DistillSummary, values)) == sentence


def test_the_first_line_of_other_jobs_is_their_main_figure() -> None:
    train = {"teacher_accuracy": 0.98, "teacher_accuracy_validation": 0.97, "train_images": 9, "test_images": 500}
    assert headline_of(read(TrainSummary, SUMMARY | train)) == "Teacher accuracy 98.0 %, in 160 s"
    assert headline_of(Summary()) == ""


def test_the_command_repeats_the_run(tmp_path: Path) -> None:
    folder = begin(str(tmp_path / "a run"), as_dict(DistillConfig()), "distill")
    assert command_of(folder) == f"raydream distill --config '{tmp_path}/a run/config.yaml'"
    (folder.path / "run.json").unlink()  # as of version 0.1, whose marker names no job
    assert command_of(folder) == f"raydream distill --config '{tmp_path}/a run/config.yaml'"
    folder.config.write_text("experiment: unknown")
    assert command_of(folder) == ""


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


HOSTILE = "</script><script>alert('x')</script>\"><img src=x onerror=y> $\\frac{ {{ 7 * 7 }}"


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
    check_closed(text, page)
    assert page.text.count(" ".join(HOSTILE.split())) >= 8


def test_a_hostile_string_ends_no_block_of_data() -> None:
    for text in (HOSTILE, "</script><script>", "<!--", "\u2028", "]]>"):
        block = str(_json({text: [text]}))
        assert not set(block) & set("<>&\u2028\u2029") and json.loads(block) == {text: [text]}


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
