"""How far a job is, and how long it will take."""

import io
import re
import time

import pytest
from rich.console import Console

from raydream.config import DistillConfig, GeneratorsConfig, TrialConfig
from raydream.config.conversion import as_dict
from raydream.reporting import progress
from raydream.reporting.cost import cost_rows, hours
from raydream.reporting.progress import (
    Counter,
    Display,
    DisplayState,
    Pace,
    device_text,
    end_text,
    result_table,
    time_text,
    waiting,
)
from raydream.runs.run_folder import begin
from raydream.runs.summary import Summary


def test_the_time_left_follows_from_what_this_session_has_done():
    pace = Pace(100)
    assert pace.left_s(0, now=0.0) is None
    assert pace.left_s(0, now=30.0) is None, "processes start"
    assert pace.left_s(10, now=40.0) is None, "nothing to compare with yet"
    assert pace.left_s(20, now=50.0) == pytest.approx(80.0)
    assert pace.left_s(60, now=60.0) == pytest.approx(16.0), "50 in 20 s"
    assert pace.left_s(100, now=61.0) == 0.0


def test_what_an_earlier_session_has_done_does_not_count():
    pace = Pace(100)
    pace.left_s(90, now=0.0)
    assert pace.left_s(91, now=10.0) == pytest.approx(90.0)


def test_work_that_is_lost_is_a_new_beginning():
    pace = Pace(100)
    pace.left_s(10, now=0.0)
    pace.left_s(50, now=10.0)
    assert pace.left_s(5, now=20.0) is None
    assert pace.left_s(10, now=30.0) == pytest.approx(180.0)
    pace.left_s(0, now=40.0)
    assert pace.left_s(10, now=50.0) is None


TEXTS = [
    (None, "?"),
    (0.0, "0 s"),
    (59.4, "59 s"),
    (61, "1 min"),
    (3599, "1 h 0 min"),
    (5400, "1 h 30 min"),
    (86_400 * 2 + 3600 * 3, "2 d 3 h"),
]


@pytest.mark.parametrize(("seconds", "text"), TEXTS)
def test_lengths_of_time(seconds, text):
    assert time_text(seconds) == text


def test_a_counter_tells_each_tenth_with_the_time_left():
    out = io.StringIO()
    with Counter("images", 20, 100, Console(file=out)) as counter:
        for done in (21, 25, 30, 35, 40, 100):
            counter.update(done)
    lines = out.getvalue().splitlines()
    assert [line.split("] ")[1].split(",")[0] for line in lines] == [
        "30 of 100 images",
        "40 of 100 images",
        "100 of 100 images",
    ]
    assert all("left: " in line for line in lines) and lines[-1].endswith("left: 0 s")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_counter_shows_speed_and_device_where_one_is_named(terminal):
    out, where = io.StringIO(), device_text("generators", 0.5)
    console = Console(file=out, force_terminal=terminal, width=200)
    with Counter("images", 0, 100, console, where=where) as counter:
        counter.update(10)
        time.sleep(0.01)
        counter.update(60)
    assert ", generators on GPUs" in out.getvalue()
    (speed,) = re.findall(r"60 of 100(?: images)? \(([\d.]+)/s\), generators on GPUs", out.getvalue())[-1:]
    assert 0 < float(speed) <= 5000


def test_a_counter_of_nothing_tells_nothing():
    out = io.StringIO()
    with Counter("images", 0, 0, Console(file=out)) as counter:
        for _ in range(3):
            counter.update(0)
    assert out.getvalue() == ""


def test_outside_a_terminal_a_line_is_printed_at_least_every_ten_seconds():
    out, now = io.StringIO(), [100.0]
    console = Console(file=out, width=200)
    display = Display(DisplayState(4, 100, 1000, 2), console, clock=lambda: now[0])
    with Counter("images", 0, 1000, console, clock=lambda: now[0]) as counter:
        for now[0] in (105.0, 109.9, 110.0, 119.0, 120.1):
            display.update(stage=f"at {now[0]}")
            counter.update(1)
    shown = out.getvalue().splitlines()
    assert [line.rpartition("  ")[2] for line in shown if "round" in line] == ["at 110.0", "at 120.1"]
    assert len([line for line in shown if "of 1000 images" in line]) == 2


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_waited_for_is_printed_outside_a_terminal(terminal, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.01)
    out = io.StringIO()
    with waiting("Ray to start", Console(file=out, force_terminal=terminal)):
        time.sleep(0.1)
    assert ("waiting for Ray to start" in out.getvalue()) is not terminal


def test_making_or_learning_whichever_takes_longer():
    display = Display(DisplayState(4, 100, 1000, 2), Console(file=io.StringIO()))
    display.update(step=0, images=0)
    assert "left ?" in display.state.line()
    display.update(step=50, images=900)
    display.update(step=100, images=1000)
    assert "left 0 s" in display.state.line()


def test_what_was_reserved():
    generators = GeneratorsConfig(count=4, cpus=0.5, gpus=0.25)
    found = hours((3600.0, 4, generators), (1800.0, 1, TrialConfig(cpus=2.0)))
    assert found == {"cpu_hours": pytest.approx(3.0), "gpu_hours": pytest.approx(1.0)}
    assert cost_rows(Summary(**found))["reserved"].startswith("3 CPU-hours, 1 GPU-hours")
    assert hours() == {"cpu_hours": 0.0, "gpu_hours": 0.0} and cost_rows(Summary()) == {}


def test_no_path_is_cut_short_and_those_below_the_working_directory_begin_there(tmp_path, monkeypatch):
    folder = begin(str(tmp_path / "runs" / "one"), as_dict(DistillConfig()), "distill")
    assert folder.shown("report.html") == f"{tmp_path}/runs/one/report.html"
    monkeypatch.chdir(tmp_path)
    assert folder.shown("report.html") == "runs/one/report.html" and folder.shown() == "runs/one"
    text, path = io.StringIO(), "/a-folder-of-a-long-name" * 5
    Console(file=text, width=80).print(result_table({"report": path}))
    assert "".join(line.split("│")[2].strip() for line in text.getvalue().splitlines()[1:-1]) == path


@pytest.mark.parametrize(
    ("left_s", "text"),
    [
        (None, "?"),
        (59.0, "59 s"),
        (90.0, "2 min, until 12:01"),
        (12 * 3600.0, "12 h 0 min, until 00:00"),
        (36 * 3600.0, "1 d 12 h, until Sun 00:00"),
    ],
)
def test_the_end_of_long_work_has_a_time_of_day(left_s, text):
    noon = time.mktime((2026, 11, 27, 12, 0, 0, 0, 0, -1))  # a Friday
    assert end_text(left_s, noon) == text


def test_a_line_has_loss_agreement_and_accuracies_once_they_are_known():
    state = DisplayState(4, 100, 1000, 2)
    assert "student: not measured yet  left" in state.line()
    state.devices = "generators on CPUs, student on CPUs"
    assert "not measured yet  generators on CPUs, student on CPUs  left" in state.line()
    state.devices = ""
    state.loss, state.agreement, state.accuracy = 0.1234, 0.9, {"validation": 0.75}
    assert "student: loss 0.123  agrees with the teacher on 90.0%  validation 75.0%  left" in state.line()
