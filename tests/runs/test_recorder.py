"""The metrics table, the display and the run folder."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raydream.errors import InputError
from raydream.reporting.progress import Display, DisplayState
from raydream.runs import run_folder
from raydream.runs.metrics_table import COLUMNS
from raydream.runs.recorder import Place, Recorder, overlap_share, union_length


@pytest.mark.parametrize(
    ("spans", "length"),
    [([], 0), ([(0, 1)], 1), ([(0, 2), (1, 3)], 3), ([(5, 6), (0, 1)], 2), ([(0, 10), (2, 3), (4, 12)], 12)],
)
def test_the_length_of_a_union_of_spans(spans, length):
    assert union_length(spans) == pytest.approx(length)


def test_overlap_is_the_share_of_training_during_which_images_are_made():
    rows = [("span/train", 0, 4), ("span/train", 6, 4), ("span/make", 2, 3), ("span/make", 3, 4)]
    metrics = pd.DataFrame(rows, columns=["name", "time_s", "duration_s"])
    assert overlap_share(metrics) == pytest.approx(3 / 8)  # 2 to 4, and 6 to 7
    assert overlap_share(metrics[metrics["name"] == "span/make"]) == 0.0


def test_rows_and_events_outlive_the_session_and_time_goes_on(tmp_path):
    began = time.time() - 100
    first = Recorder(tmp_path / "metrics.parquet", tmp_path / "events", began)
    first.point(began + 5, "student", "student/loss", 0.5, step=10)
    first.span(began + 6, 4.0, "generator-0", "make", Place(1, "r0001-b0000"))
    first.pictures(np.zeros((3, 1, 8, 8), np.uint8), np.arange(3), 0)
    first.close()
    again = time.time() - 5
    second = Recorder(tmp_path / "metrics.parquet", tmp_path / "events", again)
    second.point(again + 2, "student", "student/loss", 0.25, step=10)
    second.close()
    table = pd.read_parquet(tmp_path / "metrics.parquet")
    assert list(table.columns) == list(COLUMNS)
    assert table["time_s"].tolist() == pytest.approx([5, 6, 12], abs=1e-3)  # the first session ended at 10 s
    assert table["batch"].tolist()[1] == "r0001-b0000" and table["round"].tolist()[1] == 1
    assert second.latest("student/loss") == {10: 0.25}
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [event.value for event in events.Scalars("student/loss")] == [0.5, 0.25]
    assert events.Tags()["images"] == ["synthetic_images/classes 0-9"]


def test_without_a_terminal_a_round_is_one_plain_line(capsys):
    display = Display(
        DisplayState(rounds=4, steps=100, all_images=640, all_generators=2), Console(force_terminal=False)
    )
    with display:
        display.update(round=2, step=50, images=320, accuracy={"test": 0.9})
        display.round_ended()
    (line,) = capsys.readouterr().out.splitlines()
    assert "round 2/4" in line and "images 320/640" in line and "test 90.0%" in line


def test_in_a_terminal_all_of_it_is_shown():
    console = Console(force_terminal=True, record=True, width=120)
    with Display(DisplayState(rounds=4, steps=100, all_images=640, all_generators=2), console) as display:
        display.update(round=2, images=320, images_per_s=7.5, generators=1, stage="making images and learning")
    shown = console.export_text()
    assert "2 of 4" in shown and "320 of 640" in shown and "7.5/s" in shown and "1 of 2 generators" in shown


def test_a_teacher_is_noted_and_another_refused(tmp_path):
    folder = run_folder.begin(str(tmp_path / "run"), {"experiment": "x"}, "distill")
    run_folder.check_teacher(folder, "aaaa")
    run_folder.check_teacher(folder, "aaaa")
    with pytest.raises(InputError, match="a run of the teacher bbbb, not aaaa"):
        run_folder.check_teacher(folder, "bbbb")
    assert json.loads((folder.path / "run.json").read_text())["teacher"] == "aaaa"


def test_resuming_clears_away_what_was_half_written(tmp_path):
    folder = run_folder.begin(str(tmp_path / "run"), {"experiment": "x"}, "distill")
    images = folder.path / "images"
    images.mkdir()
    (images / ".r0000-b0000.parquet.1234abcd.aside").write_text("half")
    again, config = run_folder.resume(str(tmp_path / "run"))
    assert again == folder and config == {"experiment": "x"}
    assert list(images.iterdir()), "looking is not touching"
    with run_folder.held(folder):
        assert not list(images.iterdir())
        (images / ".r0000-b0001.parquet.5678abcd.aside").write_text("half, by a process that was killed meanwhile")
    assert not list(images.iterdir())


def test_a_run_killed_in_its_beginning_is_begun_again(tmp_path):
    path = tmp_path / "run"
    run_folder.begin(str(path), {"experiment": "x"}, "distill")
    (path / "run.json").unlink()
    with pytest.raises(InputError, match="new or empty"):
        run_folder.check_new(str(path))
    (path / run_folder.BEGINNING).touch()
    assert run_folder.begin(str(path), {"experiment": "y"}, "distill").run.startswith("y-")
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "config.yaml", "run.json"]


@pytest.mark.parametrize(
    "damage", [lambda whole: b"", lambda whole: whole[:-40], lambda whole: whole[:20] + b"xxx" + whole[23:]]
)
def test_damaged_metrics_are_quarantined_and_reported(tmp_path, damage):
    metrics = tmp_path / "metrics.parquet"
    first = Recorder(metrics, tmp_path / "events", 0.0)
    first.point(1.0, "student", "loss", 0.5, step=1)
    first.close()
    assert Recorder(metrics, tmp_path / "events", 0.0).damage is None
    metrics.write_bytes(damage(metrics.read_bytes()))
    again = Recorder(metrics, tmp_path / "events", 0.0)
    assert "cannot be read" in again.damage and "_damaged-" in again.damage
    assert again.table().empty and not metrics.exists() and len(list(tmp_path.glob("_damaged-*"))) == 1
    again.point(1.0, "student", "loss", 0.25, step=1)
    again.close()
    assert Recorder(metrics, tmp_path / "events", 0.0).latest("loss") == {1: 0.25}


def test_a_run_that_somebody_is_at_work_on_is_refused(tmp_path):
    folder = run_folder.begin(str(tmp_path / "run"), {"experiment": "x"}, "distill")
    with (
        run_folder.held(folder),
        pytest.raises(InputError, match="no other process is using"),
        run_folder.held(folder),
    ):
        pass
    with run_folder.held(folder):
        pass


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ("a.c", 2, 3)),
        ({"a": 1}, {"a": 1, "z": 2}, ("z", None, 2)),
        ({"a": {"b": {}}}, {"a": {"b": {}}}, None),
        ({"a": {"b": {}}}, {"a": {}}, ("a.b", {}, None)),
        ({"a": {}}, {"a": None}, ("a", {}, None)),
        ({"a": {}}, {"a": {"b": 1}}, ("a.b", None, 1)),
        ({"a": {"b": 1}}, {"a": None}, ("a.b", 1, None)),
    ],
)
def test_the_first_difference_of_two_configurations(one, other, difference):
    assert run_folder.first_difference(one, other) == difference


def test_a_clock_that_is_set_changes_no_duration(tmp_path, monkeypatch):
    first = Recorder(tmp_path / "metrics.parquet", tmp_path / "events", time.time() - 100)
    wall, clock = time.time, time.monotonic
    for step_s in (7200, -7200):
        monkeypatch.setattr(time, "time", lambda step_s=step_s: wall() + step_s)
        with first.stage("images"):
            pass
        assert 100 <= first.elapsed_s < 160
    monkeypatch.undo()
    assert 0 <= first.seconds_by_stage()["images"] < 60
    first.close()
    again = Recorder(tmp_path / "metrics.parquet", tmp_path / "events", time.time())
    assert 100 <= again.elapsed_s < 160
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 30)
    assert 130 <= again.elapsed_s < 190
    again.close()
