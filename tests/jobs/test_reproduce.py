"""A table of the paper: what a run leaves, a kill, cells of another run, and bad input."""

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from tests.calls import call, start, wait_until
from tests.conftest import Job

TINY = Path(__file__).parents[1] / "reproduction" / "tiny_table.yaml"
ROWS = ["deep_inversion", "real"]


@pytest.fixture(scope="module")
def options(library: Path) -> list[str]:
    return ["--config", str(TINY), "--table", "6", "--rows", str(ROWS), "--training.library", str(library)]


@pytest.fixture(scope="module")
def made(options: list[str], tmp_path_factory: pytest.TempPathFactory, job: Job) -> Path:
    """A finished run, beside the library of its cells and images."""
    folder = tmp_path_factory.mktemp("table")
    done = job("reproduce", *options, "--run-dir", folder / "run", "--library", folder / "library")
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert "paper: epochs 90" in done.stdout
    return folder / "run"


def test_a_table_says_what_its_cells_say(made: Path) -> None:
    summary = json.loads((made / "summary.json").read_text())
    told = [json.loads(path.read_text()) for path in (made.parent / "library" / "cells").glob("*.json")]
    accuracy = summary["figures"]["student_accuracy"]
    assert len(told) == 4
    for row in ROWS:
        values = [each["figures"]["student_accuracy"] for each in told if each["cell"].startswith(row)]
        assert accuracy[row]["mean"] == pytest.approx(sum(values) / 2)
        assert accuracy[row]["seeds"] == 2 and accuracy[row]["spread"] is not None
    assert summary["paper"]["deep_inversion"]["epochs_90"] == 68.0 and {"machine", "versions", "date"} <= {*summary}
    assert "| deep inversion |" in (made / "table.md").read_text()
    assert {"run", "paper"} == set(pd.read_parquet(made / "table.parquet")["source"])
    page = (made / "report.html").read_text()
    assert "Beside the paper" in page and "While students learn" in page
    assert not list(made.parent.rglob(".*aside"))


def test_another_run_takes_the_cells_that_a_library_has(
    made: Path, options: list[str], tmp_path: Path, job: Job
) -> None:
    done = job("reproduce", *options, "--run-dir", tmp_path / "other", "--library", made.parent / "library")
    assert done.returncode == 0 and "4 of 4 cells are there already" in done.stdout, done.stdout + done.stderr
    one, other = (json.loads((path / "summary.json").read_text()) for path in (made, tmp_path / "other"))
    assert one["figures"] == other["figures"]


@pytest.mark.chaos
def test_a_killed_table_goes_on_and_fills_only_what_is_missing(options: list[str], tmp_path: Path, job: Job) -> None:
    run_dir, library = tmp_path / "run", tmp_path / "library"
    process = start("reproduce", *options, "--run-dir", run_dir, "--library", library)
    cells, images = library / "cells", library / "images"
    # Of either, as the row of real images needs none that are made.
    wait_until(lambda: bool([*cells.glob("*.json")] and [*images.rglob("r*.parquet")]), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    shards = {path: path.stat().st_mtime_ns for path in images.rglob("r*.parquet")}
    assert 1 <= len(before) < 4 and not (run_dir / "summary.json").exists()
    done = job("reproduce", "--resume", run_dir)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert f"{len(before)} of 4 cells are there already" in done.stdout
    after = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert len(after) == 4 and {name: after[name] for name in before} == before
    # By their whole path, as the sets of all seeds have the same names in them.
    assert shards and {path: path.stat().st_mtime_ns for path in shards} == shards
    assert json.loads((run_dir / "summary.json").read_text())["figures"]["student_accuracy"].keys() == {*ROWS}
    assert not list(tmp_path.rglob(".*aside"))


def test_an_estimate_is_printed_and_nothing_is_written(options: list[str], tmp_path: Path) -> None:
    done = call("reproduce", *options, "--estimate", "true", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    # Two sets of 40 images, by 4 updates for each batch of 20.
    assert "images to make: 80 in 4 batches, 16 updates" in done.stdout and "CPU-hours" in done.stdout
    assert not (tmp_path / "run").exists()


BAD = [
    ([], "table", "1 to 7"),
    (["--table", "8"], "table", "1 to 7"),
    (["--table", "1", "--scale", "huge"], "scale", "'digits', 'cifar' or 'paper'"),
    (["--table", "1", "--rows", "[dreams]"], "rows", "one of noise, deepdream"),
    (["--table", "1", "--seeds", "0"], "seeds", "greater than or equal to 1"),
    (["--table", "1", "--cpus", "512"], "cpus", "at most"),
    (["--table", "1", "--data.name", "none"], "data.name", "a data set"),
    (["--table", "2", "--verifiers", "[]"], "verifiers", "one network at least"),
    (["--table", "4", "--ratios", "[1.5]"], "ratios.0", "less than 1"),
    (["--table", "5", "--pruning.eta", "0"], "pruning.eta", "> 0 for table 5"),
    (["--table", "6", "--new_images", "100"], "new_images", "a multiple of synthesis.batch_size (128)"),
    (["--table", "6", "--sources", '{"faces": "no_such.parquet"}'], "sources.faces", "no_such.parquet"),
    (["--table", "6", "--sources", '{"real": "mine.parquet"}'], "sources", "a name that no row"),
    (["--table", "4", "--ratios", "[0.125, 0.12]"], "ratios", "differ in whole percents"),
    (["--table", "4", "--ratios", "[0.99]"], "ratios", "at most 0.923"),
    (["--table", "6", "--student.network", "nope"], "student.network", "package.module:factory"),
    (["--table", "6", "--sources", '{"mine": "real"}'], "sources.mine", "write ./real"),
    (["--table", "2", "--verifiers", "[{network: nope}]"], "verifiers.0.network", "package.module:factory"),
    (["--table", "2", "--teacher.network", "nope"], "teacher.network", "package.module:factory"),
    (["--table", "6", "--student.batch_size", "2048"], "student.batch_size", "at most 896"),
    (["--table", "1", "--rows", "[adaptive]", "--buffer.samples_per_insert", "1"], "rounds.count", "44 distillation"),
    (["--table", "1", "--library", "/dev/null/library"], "library", "a folder that can be written to"),
    (["--table", "7", "--steps", "[]"], "steps", "a data set of new classes"),
    (["--table", "1", "--synthesis.stages", "[{iterations: 5}]"], "synthesis.stages", "none with method dafl"),
    (["--table", "1", "--scale", "cifar", "--teacher.checkpoint", "no_such.th"], "teacher.checkpoint", "no_such.th"),
    (
        [
            "--table",
            "1",
            "--scale",
            "cifar",
            "--teacher.checkpoint",
            "null",
            "--data.name=files",
            "--data.test=t.npz",
            "--data.validation=no_such.npz",
        ],
        "data.validation",
        "no_such.npz",
    ),
]


@pytest.mark.parametrize(("options", "field", "says"), BAD, ids=[" ".join(options) or "nothing" for options, *_ in BAD])
def test_bad_input_is_one_sentence_before_anything_starts(
    options: list[str], field: str, says: str, tmp_path: Path
) -> None:
    done = call("reproduce", *options, "--run-dir", tmp_path / "run")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(f"error: {field} = ") and says in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()
