"""The check's command line: what it refuses, and how it ends."""

import json
from pathlib import Path

import pytest

from raydream.device_check import command
from raydream.device_check.command import check
from raydream.device_check.steps import STEPS, CheckStep
from tests.calls import ROOT

BAD = [
    (["--device", "gpu"], "--device = 'gpu': must be one of auto, cpu, cuda, mps; "),
    (["--device", "cuda"], "device = 'cuda': must be one of cpu, or auto; this machine has no such device"),
    (["--minutes", "0"], "--minutes = 0.0: must be > 0 and finite; "),
    (["--minutes", "nan"], "--minutes = nan: "),
    (["--minutes", "inf"], "--minutes = inf: "),
    (["--only", "facts,resnet"], "--only = 'resnet': must be some of facts, rates, smoke, "),
    (["--out", "."], "--out = '.': must be a file in a folder that exists; "),
    (["--out", "none/check.json"], "--out = 'none/check.json': must be a file in a folder that exists; "),
]


@pytest.mark.parametrize(("options", "says"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_one_sentence_and_status_2(options, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if options[1] == "cuda" and _has_cuda():
        pytest.skip("this machine has a GPU")
    assert check("", options) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {says}") and told.err.count("\n") == 1 and not told.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["--outt", "x"], ["--minutes", "many"], ["--min", "3"], ["word"], ["--only"]])
def test_what_is_no_option_ends_with_status_2(options, capsys):
    with pytest.raises(SystemExit) as ended:
        check("", options)
    assert ended.value.code == 2 and "error: " in capsys.readouterr().err


def test_help_names_each_step(capsys):
    with pytest.raises(SystemExit) as ended:
        check("what it is", ["--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and "what it is" in told
    assert all(step.name in told and step.does in told for step in STEPS)


def fakes(*names: str) -> tuple[CheckStep, ...]:
    return tuple(CheckStep(name, "something", f"tests.device_check.fakes:{name}", 30) for name in names)


def test_the_status_is_1_where_a_step_failed_and_0_where_none_did(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command, "STEPS", fakes("facts", "raises", "options"))
    out = tmp_path / "check.json"
    assert check("", ["--out", str(out)]) == 1
    told = capsys.readouterr().out
    assert "2 passed, 1 failed, 0 skipped" in told and f"all figures: {out}" in told and "no such thing on auto" in told
    assert check("", ["--out", str(out), "--only", "options"]) == 0
    assert list(json.loads(out.read_text())) == ["facts", "options"], "the first step always runs"


def test_deadlines_grow_with_the_minutes(tmp_path, monkeypatch):
    seen: list[tuple[list[float], float]] = []

    def note(steps: list[CheckStep], device: str, out: Path, limit_s: float, say: object) -> dict[str, object]:
        seen.append(([step.deadline_s for step in steps], limit_s))
        return {"facts": {"ok": True, "error": None, "seconds": 1.0, "figures": {}}}

    monkeypatch.setattr(command, "run_steps", note)
    for minutes in ("8", "24"):
        assert check("", ["--out", str(tmp_path / "x"), "--minutes", minutes]) == 0
    (usual, limit_s), (patient, longer_s) = seen
    assert limit_s == 480 and longer_s == 1440 and patient == [3 * each for each in usual]
    assert usual == [step.deadline_s for step in STEPS]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
