"""Runs of older versions are still read; those that are unfinished are refused where the mathematics has changed."""

import json
import shutil
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from raydream.config import TeacherConfig
from raydream.config.conversion import validate
from raydream.engine_version import ENGINE_VERSION
from raydream.runs.catalogue import SIGNS
from raydream.runs.metrics_table import COLUMNS, MetricsTable, read_metrics
from raydream.runs.references import resolve
from raydream.runs.run_folder import begin
from raydream.runs.run_list import find_runs
from raydream.teachers.loading import load_teacher
from tests.calls import call, images_of

ARCHIVES = sorted((Path(__file__).parent / "older").glob("*.tar.xz"))
OLD_NAMES = {"extend": "continual", "train": "train_teacher"}
JOBS = sorted(OLD_NAMES.get(signs.job, signs.job) for signs in SIGNS)
QUICK = ("evaluate", "search", "synthesize")
"""jobs whose finished runs are quickly told of"""


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_every_job_has_a_run_that_is_listed_with_its_figure(runs: Path) -> None:
    listed = {Path(run.where).name: run for run in find_runs(str(runs))}
    assert sorted(listed) == JOBS
    for job, run in listed.items():
        assert (OLD_NAMES.get(run.job, run.job), run.state) == (job, "done") and run.figure is not None


# Pages are drawn again, which takes seconds each.
@pytest.mark.parametrize("job", [job if job in QUICK else pytest.param(job, marks=pytest.mark.long) for job in JOBS])
def test_resuming_a_finished_run_says_what_it_came_to(job: str, runs: Path) -> None:
    done = call(job, "--resume", runs / job)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout


@pytest.mark.parametrize("job", JOBS)
def test_an_unfinished_run_of_another_engine_is_refused(job: str, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / job, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    done = call(job, "--resume", tmp_path / "run")
    assert done.returncode == 2 and done.stdout == ""
    assert f"a run of engine version {ENGINE_VERSION}; version 1 began it: resume it with" in done.stderr


@pytest.mark.parametrize("job", ["distill", "transfer", "prune", "continual", "train_teacher", "synthesize"])
def test_the_network_of_a_run_can_be_used(job: str, runs: Path) -> None:
    resolved = resolve({"teacher": {"network": f"run:{runs / job}"}})["teacher"]
    assert load_teacher(validate(TeacherConfig, resolved)).fingerprint


def test_images_are_read(runs: Path) -> None:
    images = images_of(runs / "synthesize")
    assert sum(map(len, images.values())) == 25 and all(batch.provenance.recipe for batch in images.values())


def test_metrics_are_read_and_continued(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "metrics.parquet"
    shutil.copy(runs / "distill" / path.name, path)
    before = pd.read_parquet(path)
    assert len(before) and read_metrics(path).equals(before.astype(COLUMNS))
    table = MetricsTable(path)
    assert table.damage is None and table.end_s > 0
    table.append((table.end_s + 1, None, "student", "student/loss", None, 1, None, 0.5))
    table.flush()
    continued = read_metrics(path)
    assert len(continued) == len(before) + 1 and continued[:-1].equals(before.astype(COLUMNS))
    table.merge()
    assert read_metrics(path).equals(continued) and pd.read_parquet(path).astype(COLUMNS).equals(continued)


def test_runs_are_compared_with_each_other(runs: Path, tmp_path: Path) -> None:
    done = call("report", runs / "distill", runs / "transfer", "--out", tmp_path / "page.html")
    assert done.returncode == 0 and "distill" in (tmp_path / "page.html").read_text()


def test_a_run_of_this_engine_says_so(tmp_path: Path) -> None:
    begin(str(tmp_path / "run"), {"experiment": "new"}, "distill")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["engine"] == ENGINE_VERSION
