"""MLflow and Weights & Biases: by their own clients, in a local file store and offline."""

import struct
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from raydream import extras
from raydream.config import DistillConfig
from raydream.config.conversion import as_dict
from raydream.errors import RaydreamError
from raydream.runs.journal import read_journal
from raydream.runs.recording import recording
from raydream.runs.run_folder import RunFolder
from raydream.tracking.sinks import TRACKERS, trackers_of
from tests.cli.test_mistakes import said
from tests.tiny import local_run

SETTINGS = as_dict(DistillConfig(seed=5))


@pytest.fixture
def file_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def session(folder: RunFolder, tracker: str, step: int, is_done: bool) -> None:
    """One session of a run that is sent to a tracker."""
    with recording(folder, time.time(), print, "digits", [tracker]) as (recorder, _):
        recorder.point(time.time(), "student", "student/loss", 1.0 / step, step=step)
        recorder.show(time.time(), "synthesis/tv/round-0001", 0.25, 10)
        recorder.flush()
        if is_done:
            recorder.finish(SETTINGS, {"student_accuracy": 0.9})


def mlflow_runs() -> list[Run]:
    client = MlflowClient()
    return list(client.search_runs([client.get_experiment_by_name("digits").experiment_id]))


def test_mlflow_has_the_run_under_its_name_with_curves_settings_and_figures(tmp_path, file_store):
    session(local_run(tmp_path), "mlflow", 10, is_done=True)
    (run,) = mlflow_runs()
    assert run.info.run_name == "run" and run.info.status == "FINISHED"
    assert run.data.metrics == {"student/loss": 0.1, "synthesis/tv/round-0001": 0.25, "summary/student_accuracy": 0.9}
    assert run.data.params["seed"] == "5" and run.data.params["synthesis.method"] == "adaptive"


def test_a_resumed_run_continues_its_run_in_mlflow(tmp_path, file_store):
    folder = local_run(tmp_path)
    session(folder, "mlflow", 10, is_done=False)
    assert [run.info.status for run in mlflow_runs()] == ["KILLED"]
    session(folder, "mlflow", 20, is_done=True)
    (run,) = mlflow_runs()
    history = MlflowClient().get_metric_history(run.info.run_id, "student/loss")
    assert [(each.step, each.value) for each in history] == [(10, 0.1), (20, 0.05)] and run.info.status == "FINISHED"


def test_many_values_are_sent_before_the_end_in_requests_that_mlflow_takes(tmp_path, file_store):
    with recording(local_run(tmp_path), time.time(), print, "digits", ["mlflow"]) as (recorder, _):
        for step in range(1200):
            recorder.show(time.time(), "student/loss", 0.5, step)
        (run,) = mlflow_runs()
        assert len(MlflowClient().get_metric_history(run.info.run_id, "student/loss")) == 1000
    assert len(MlflowClient().get_metric_history(run.info.run_id, "student/loss")) == 1200


def records(path: Path) -> list[Any]:
    """The records of a file of W&B's, which is one of LevelDB's logs: chunks of CRC, length and type in blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        if at + 7 + length > len(content):
            break  # not wholly written yet
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(Record.FromString(whole))
            whole = b""
    return found


def any_of(kept: list[Any], kind: str) -> list[Any]:
    """Those of the records that are of a kind."""
    return [each for each in kept if each.HasField(kind)]


def test_wandb_has_the_run_under_its_name_with_curves_settings_and_figures(tmp_path, offline):
    pytest.importorskip("wandb", reason="its client brings a dozen packages, and is not part of [dev]")
    folder = local_run(tmp_path)
    session(folder, "wandb", 10, is_done=True)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 60
    while not (any_of(kept := records(file), "exit") and any_of(kept, "config")) and time.monotonic() < deadline:
        time.sleep(0.1)  # W&B's own process writes the file, and may do so after `finish`
    kept = {kind: any_of(kept, kind) for kind in ("run", "history", "config")}
    assert (kept["run"][0].run.run_id, kept["run"][0].run.project) == ("run", "digits")
    rows = [
        {".".join(item.nested_key) or item.key: item.value_json for item in each.history.item}
        for each in kept["history"]
    ]
    assert {"student/loss": "0.1", "student/step": "10"}.items() <= rows[0].items()
    assert {"synthesis/tv/round-0001": "0.25", "synthesis/step": "10"}.items() <= rows[1].items()
    settings = {
        item.key or ".".join(item.nested_key): item.value_json for each in kept["config"] for item in each.config.update
    }
    assert settings["seed"] == "5"


@pytest.mark.parametrize("tracker", [*TRACKERS])
def test_a_missing_extra_is_one_sentence(tracker, monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    sentence = f"--track {tracker} needs {tracker}, which is not installed: pip install 'raydream[{tracker}]'"
    assert said(["distill", "--config", "digits", "--track", tracker]) == (2, "", f"error: {sentence}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "names"), [("mlflow", ("mlflow",)), ("wandb, mlflow", ("wandb", "mlflow")), ("mlflow,mlflow", ("mlflow",))]
)
def test_trackers_are_named_with_commas_between(text, names, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: name)  # each is installed
    assert trackers_of(text) == names


@pytest.mark.parametrize("text", ["", "neptune", "mlflow;wandb", "mlflow,", "MLflow"])
def test_an_unknown_tracker_is_named_with_the_known_ones(text):
    status, out, error = said(["distill", "--config", "digits", "--track", text])
    assert (status, out) == (2, "") and error.startswith("error: --track = ") and "mlflow or wandb" in error


def test_a_store_that_cannot_be_used_ends_the_run_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://store")
    with pytest.raises(RaydreamError, match=r"^--track mlflow failed: .*; correct this, or leave the option out$"):
        session(local_run(tmp_path), "mlflow", 10, is_done=True)


def test_a_server_that_fails_later_costs_its_curves_and_not_the_run(tmp_path, file_store):
    folder = local_run(tmp_path)
    with recording(folder, time.time(), print, "digits", ["mlflow"]) as (recorder, _):
        for path in sorted((tmp_path / "mlruns").rglob("meta.yaml")):
            path.unlink()
        for step in (1, 2, 3):
            recorder.point(time.time(), "student", "student/loss", 0.5, step=step)
            recorder.flush()
    (entry,) = read_journal(folder.journal)
    assert entry.text.startswith("mlflow failed, and gets no further curves of this session: ")
    assert len(recorder.table()) == 3
