"""The page of a table, of made-up cells: all seeds in a band, the best row marked, images of each method."""

from pathlib import Path

import numpy as np
import pytest

from raydream.config.conversion import as_dict
from raydream.reporting.charts import Chart, Mosaic
from raydream.reproduction.cells import Filled
from raydream.reproduction.figures import projections
from raydream.reproduction.report import _page, write_table
from raydream.reproduction.results import in_summary, rows_of
from raydream.reproduction.tables import Cell, cells_of
from raydream.runs.run_folder import RunFolder, begin
from raydream.runs.summaries import ReproduceSummary
from tests.reporting.test_report import Page, check_closed
from tests.reproduction.test_tables import tiny

CONFIG = tiny(6, rows=["noise", "adaptive", "real"])


def fill(cell: Cell) -> Filled:
    best = {"noise": 0.3, "adaptive": 0.8, "real": 0.95}[cell.row] + 0.02 * cell.seed
    curve = [{"step": step, "test": best * step / 20, "validation": best} for step in (10, 20)]
    images = np.random.default_rng(cell.seed).integers(0, 255, (3, 1, 8, 8)).tolist()
    figures = {"student_accuracy": best, "student_accuracy_best": best}
    return Filled(figures, {"measured_on": "500 images", "images": 40}, curve, images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return begin(str(tmp_path_factory.mktemp("table") / "run"), as_dict(CONFIG), "reproduce")


FILLED = [(cell, fill(cell)) for cell in cells_of(CONFIG)]
ROWS = rows_of(FILLED, 6)


def summary() -> ReproduceSummary:
    about = {"data": "digits", "teacher": "digits", "measured_on": "500 images", "date": "2026-11-29"}
    return ReproduceSummary(
        table=6, scale="digits", seeds=2, headline="student_accuracy", figures=in_summary(ROWS), paper={},
        cell_seconds=3.0, wall_s=4.0, **about,
    )  # fmt: skip


def test_the_page_shows_all_seeds_and_the_best_row(folder: RunFolder):
    page = _page(folder, CONFIG, ROWS, FILLED, summary())
    assert page.headline == "Table 6, student accuracy, real 96.0 %, in 4 s"
    assert page.command.startswith("raydream reproduce --config ")
    table, images, learned, plane = page.sections
    assert table.table is not None and [table.table.rows[at][0] for at in table.table.best] == ["adaptive"]
    (mosaic,), (chart,) = images.shown, learned.shown
    assert isinstance(mosaic, Mosaic) and [name for name, _ in mosaic.rows] == ["noise", "adaptive", "real"]
    assert isinstance(chart, Chart) and [panel.title for panel in chart.panels] == ["real test images"]
    line = chart.panels[0].lines[1]
    assert line.name == "adaptive" and line.points == [(10.0, pytest.approx(0.405)), (20.0, pytest.approx(0.81))]
    assert line.band[1] == (20.0, pytest.approx(0.8), pytest.approx(0.82))
    assert len({each.color for each in chart.panels[0].lines}) == 3, "methods are categories"
    assert plane.shown == []


def test_the_written_page_is_closed(folder: RunFolder):
    write_table(folder, CONFIG, ROWS, FILLED, summary())
    text = Path(folder.report).read_text()
    check_closed(text, Page(text))


def test_features_lie_over_those_of_real_images():
    chart = projections({"real": np.zeros((3, 2)), "adaptive": np.ones((2, 2))})
    assert chart is not None
    (panel,) = chart.panels
    assert [(line.name, len(line.points), line.dots) for line in panel.lines] == [
        ("real", 3, True),
        ("these images", 2, True),
    ]
    assert projections({"real": np.zeros((3, 2))}) is None
