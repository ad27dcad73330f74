"""Steps that fail, hang, die and leave things behind; none of these here loads torch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydream.device_check import runner
from raydream.device_check.runner import run_steps
from raydream.device_check.steps import STEPS, CheckStep, why_skipped
from raydream.device_check.summary import failed, outcome, summary
from tests.calls import ROOT

FACTS = CheckStep("facts", "what there is", "tests.device_check.fakes:facts", 30)


def fake(name: str, deadline_s: float = 30, needs: tuple[str, ...] = (), **options: object) -> CheckStep:
    return CheckStep(name, "something", f"tests.device_check.fakes:{name}", deadline_s, options, needs)


def run(*steps: CheckStep, out: Path, limit_s: float = 60) -> tuple[dict[str, dict], list[str]]:
    lines: list[str] = []
    return run_steps(steps, "cpu", out, limit_s, lines.append), lines


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def assert_ended(pids: Path) -> None:
    for pid in map(int, pids.read_text().split()):
        deadline = time.monotonic() + 10
        while is_alive(pid):
            assert time.monotonic() < deadline, f"process {pid} was left"
            time.sleep(0.02)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "check.json"


def test_figures_errors_and_skips_are_kept_step_by_step(out):
    steps = (FACTS, fake("options", width=3), fake("raises"), fake("finds"), fake("dies", needs=("ray",)))
    results, lines = run(*steps, fake("sleeps", needs=("ray", "cuda")), out=out)
    assert json.loads(out.read_text()) == results and list(results) == [*(step.name for step in steps), "sleeps"]
    assert all(set(result) == {"ok", "error", "seconds", "figures"} for result in results.values())
    assert results["options"]["figures"] == {"device": "cpu", "width": 3} and results["options"]["ok"] is True
    assert results["raises"]["error"].startswith("ValueError: no such thing on cpu\nTraceback")
    assert results["finds"]["error"] == "two digests differ" and results["finds"]["figures"] == {"digests": [1, 2]}
    assert "status 7" in results["dies"]["error"] and "the last words" in results["dies"]["error"]
    assert results["sleeps"]["ok"] is None and results["sleeps"]["figures"] == {"skipped": "it needs a CUDA GPU"}
    assert failed(results) == ["raises", "finds", "dies"]
    assert len(lines) == 12 and lines[10] == "[6/6] sleeps: something" and "skipped" in lines[11]
    text = summary(results, out)
    assert "2 passed, 3 failed, 1 skipped" in text and "no such thing on cpu" in text and "Traceback" in text


def test_a_step_past_its_deadline_is_killed_with_its_children_and_the_next_one_runs(out, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "GRACE_S", 0.3)
    pids = tmp_path / "pids"
    results, _ = run(FACTS, fake("sleeps", 2.0, pids=str(pids)), fake("options"), out=out)
    assert results["sleeps"]["ok"] is False and "within 2 s" in results["sleeps"]["error"]
    assert 2.0 <= results["sleeps"]["seconds"] < 10 and results["options"]["ok"]
    assert_ended(pids)


def test_what_a_step_left_running_is_killed(out, tmp_path):
    results, _ = run(FACTS, fake("leaves_a_child", pids=str(tmp_path / "pids")), out=out)
    assert results["leaves_a_child"]["ok"]
    assert_ended(tmp_path / "pids")


def test_all_steps_together_have_a_limit_and_those_that_it_leaves_out_failed(out, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "GRACE_S", 0.3)
    steps = (fake("sleeps", pids=str(tmp_path / "pids")), fake("options"), fake("raises", needs=("cuda",)))
    results, _ = run(*steps, out=out, limit_s=2.0)
    assert 1.5 < results["sleeps"]["seconds"] < 10
    assert results["options"]["ok"] is False and "--minutes" in results["options"]["error"]
    assert results["raises"]["ok"] is False, "nothing is known to be missing where the first step failed"


def test_steps_share_a_compile_cache_that_is_empty_at_first_and_gone_afterwards(out):
    results, _ = run(fake("environment"), out=out)
    figures = results["environment"]["figures"]
    assert figures.pop("existed") == [False, False]
    assert not [path for path in figures.values() if Path(path).parent.exists()]


def test_the_file_is_written_after_each_step(out, tmp_path):
    seen = []
    run_steps(
        (FACTS, fake("options")),
        "cpu",
        out,
        60,
        lambda line: out.exists() and seen.append(len(json.loads(out.read_text()))),
    )
    assert seen == [1, 1, 2]


def test_ctrl_c_and_sigterm_end_the_step_in_progress(tmp_path):
    pids, out = tmp_path / "pids", tmp_path / "check.json"
    code = f"""
import sys
from raydream.device_check import command, runner
from raydream.device_check.steps import CheckStep
runner.GRACE_S = 0.3
command.STEPS = (CheckStep("sleeps", "", "tests.device_check.fakes:sleeps", 60, {{"pids": {str(pids)!r}}}),)
sys.exit(command.check("", ["--out", {str(out)!r}]))
"""
    for number in (signal.SIGINT, signal.SIGTERM):
        pids.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not (pids.exists() and pids.read_text().count(" ")):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        os.kill(process.pid, number)
        assert "interrupted" in process.communicate(timeout=30)[1] and process.returncode == 130
        assert_ended(pids)


def test_each_step_has_a_name_and_a_function_of_its_own_file():
    assert len({step.name for step in STEPS}) == len(STEPS) and STEPS[0].name == "facts"
    root = ROOT / "platform"
    for step in STEPS:
        module, _, function = step.target.partition(":")
        assert f"\ndef {function}(device: str" in (root / f"{module.replace('.', '/')}.py").read_text(), step.target


@pytest.mark.parametrize(
    ("needs", "has", "reason"),
    [
        ((), {"cuda": False, "ray": False}, None),
        (("cuda",), {"cuda": True, "ray": False}, None),
        (("cuda",), {"cuda": False, "ray": True}, "it needs a CUDA GPU"),
        (("ray",), {"cuda": True, "ray": False}, "it needs Ray"),
    ],
)
def test_a_step_is_skipped_where_something_that_it_needs_is_missing(needs, has, reason):
    assert why_skipped(fake("options", needs=needs), {"has": has}) == reason
    assert why_skipped(fake("options", needs=needs), {}) is None


def test_an_outcome_is_one_line_of_numbers():
    figures = {"versions": {"torch": "2"}, "sizes": {"8x8": {"ms": 1.23456, "compiled": True}}, "notes": ["x"]}
    line = outcome({"ok": True, "error": None, "seconds": 3.04, "figures": figures})
    assert line == "passed in 3.0 s: versions.torch 2, sizes.8x8.ms 1.235, sizes.8x8.compiled yes"
    many = {f"figure_{index}": index for index in range(100)}
    assert len(outcome({"ok": True, "error": None, "seconds": 3.0, "figures": many})) < 200
    assert outcome({"ok": False, "error": "a\nb", "seconds": 1.0, "figures": {}}) == "FAILED after 1.0 s: a"
