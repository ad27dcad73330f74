"""Runs as frames."""

import json
from pathlib import Path

import pandas as pd
import pytest

from raydream.config import CoefficientsConfig, DistillConfig, SynthesisConfig
from raydream.config.conversion import as_dict
from raydream.errors import InputError, ShardError
from raydream.runs import metrics_frame, runs_frame
from raydream.runs.run_folder import begin, check_teacher
from raydream.store.atomic import write_json
from raydream.store.shards import ShardStore
from tests.reporting.test_figures import make_batch, make_metrics
from tests.test_imports import imported, packages


def make_comparable(path: Path, seed: int, feature: float, accuracy: float | None) -> Path:
    """A run of jobs/distill.py with made-up measurements; not done where there is no accuracy."""
    synthesis = SynthesisConfig(coefficients=CoefficientsConfig(feature=feature))
    folder = begin(str(path), as_dict(DistillConfig(seed=seed, synthesis=synthesis)), "distill")
    check_teacher(folder, "f00dcafe")
    make_metrics(rounds=1 + seed).to_parquet(folder.metrics, index=False)
    for shown in range(2):
        ShardStore(folder.images).write(make_batch(shown))
    if accuracy is not None:
        stages = {"seconds_by_stage": {"rounds": 2.5}, "data": "digits", "lockstep": False, "overlap_share": None}
        write_json(folder.summary, {"student_accuracy": accuracy, "images": 60 + seed, **stages})
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_comparable(folder / "one", 0, 10.0, 0.9),
        make_comparable(folder / "two", 1, 1.0, 0.95),
        make_comparable(folder / "three", 1, 1.0, None),
    ]


def test_a_row_for_each_run(runs):
    frame = runs_frame(runs)
    assert list(frame["run"]) == [str(run) for run in runs]
    assert set(frame["job"]) == {"distill"} and set(frame["teacher"]) == {"f00dcafe"}
    assert list(frame["state"]) == ["done", "done", "unfinished"] and set(frame["method"]) == {"adaptive"}
    assert (pd.Timestamp.now("UTC") - frame["date"]).dt.total_seconds().between(0, 3600).all()
    # Exactly what differs, and what is a number.
    settings = {name for name in frame if name.startswith("config.")}  # type: ignore[attr-defined]
    assert settings == {"config.seed", "config.synthesis.coefficients.feature"}
    assert list(frame["config.synthesis.coefficients.feature"]) == [10.0, 1.0, 1.0]
    figures = set(frame) - settings - {"run", "job", "state", "date", "teacher", "method"}
    assert figures == {"student_accuracy", "images", "seconds_by_stage.rounds"}
    assert list(frame["student_accuracy"][:2]) == [0.9, 0.95] and pd.isna(frame["student_accuracy"][2])


def test_runs_of_one_configuration_differ_in_no_setting(runs):
    assert not [name for name in runs_frame(runs[1:]) if name.startswith("config.")]  # type: ignore[attr-defined]


def test_metrics_of_all_runs_below_each_other(runs, tmp_path):
    bare = begin(str(tmp_path / "bare"), as_dict(DistillConfig()), "distill").path
    frame = metrics_frame([*runs, bare])
    assert list(frame.columns)[:3] == ["run", "time_s", "duration_s"]
    for index, run in enumerate(runs):
        own = frame[frame["run"] == str(run)].drop(columns="run").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, make_metrics(rounds=(1, 2, 2)[index]))
    assert str(bare) not in set(frame["run"])
    assert not len(metrics_frame([bare])) and "value" in metrics_frame([bare])


def test_what_is_no_run_and_what_is_damaged(runs, tmp_path):
    with pytest.raises(InputError, match=r"RUN.*run\.json"):
        runs_frame([tmp_path])
    damaged = make_comparable(tmp_path / "damaged", 0, 1.0, 0.5)
    (damaged / "metrics.parquet").write_bytes(b"PAR1")
    with pytest.raises(ShardError, match="damaged"):
        metrics_frame([damaged])
    (damaged / "summary.json").write_text("{")
    assert list(runs_frame([damaged])["state"]) == ["damaged"]
    marker = json.loads((runs[0] / "run.json").read_text())
    (damaged / "run.json").write_text(json.dumps(marker | {"format": 99}))
    assert list(runs_frame([damaged])["state"]) == ["damaged"]


def test_reporting_is_imported_without_pandas():
    package, listing = imported("import raydream.reporting", "import raydream.runs.run_list")
    assert not {"torch", "pandas", "matplotlib"} & packages(package)
    assert "torch" not in packages(listing), "jobs/runs.py answers at once"
