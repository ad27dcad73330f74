"""Coefficients that are `auto`, through a job: the doctor's, as it needs no Ray and shares its skeleton with all."""

import io
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from raydream.cli import parse
from raydream.config import DoctorConfig, SynthesizeConfig, TeacherJobConfig
from raydream.diagnosis import structure
from raydream.errors import InputError
from raydream.jobs.coefficients import with_coefficients
from raydream.reporting import progress
from raydream.runs.journal import read_journal
from raydream.synthesis.balance import with_balance
from raydream.teachers.checkpoints import save_network
from tests.calls import call
from tests.tiny import WIDTH, tiny_network, tiny_synthesis, tiny_teacher

AUTOMATIC = ("--synthesis.coefficients.feature", "auto", "--synthesis.coefficients.tv", "auto")


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that describe the tiny network, whose checkpoint lies in a file."""
    monkeypatch.setattr(structure, "_exported", lambda network, config: "yes")  # exporting takes seconds
    save_network(tiny_network(), tmp_path / "tiny.safetensors")
    teacher = {"checkpoint": str(tmp_path / "tiny.safetensors"), "arguments": {"width": WIDTH}}
    synthesis = {"batch_size": 8, "precision": "fp32", "jitter": 1, "iterations": 6}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"seed": 3, "teacher": teacher, "synthesis": synthesis}))
    return ["--config", str(path), "--updates", "0"]


def kept(run_dir: Path) -> dict[str, float]:
    coefficients: dict[str, float] = yaml.safe_load((run_dir / "config.yaml").read_text())["synthesis"]["coefficients"]
    return coefficients


def test_a_run_keeps_the_numbers_and_notes_them_in_its_journal(tmp_path, described):
    run_dir = tmp_path / "run"
    done = call("doctor", *described, *AUTOMATIC, "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = tiny_synthesis(method="deep_inversion", coefficients={"feature": "auto", "tv": "auto"})
    numbers = with_balance(tiny_teacher(), expected, 3).coefficients
    assert (kept(run_dir)["feature"], kept(run_dir)["tv"]) == (numbers.feature, numbers.tv)
    (noted,) = [entry.text for entry in read_journal(run_dir / "journal.jsonl") if "coefficients" in entry.text]
    assert f"tv {numbers.tv:g}" in noted and f"feature {numbers.feature:g}" in noted
    (run_dir / "summary.json").unlink()  # an unfinished run, from here on
    for given in ([], [*described, *AUTOMATIC]):
        before = kept(run_dir)
        assert call("doctor", *given, "--resume", run_dir).returncode == 0
        assert kept(run_dir) == before and len(read_journal(run_dir / "journal.jsonl")) == 1
    other = call("doctor", *described, "--synthesis.coefficients.tv", "0.5", "--resume", run_dir)
    assert other.returncode == 2 and other.stderr.startswith("error: synthesis.coefficients.tv = 0.5: must be ")


def test_named_coefficients_are_kept_as_they_are_and_not_noted(tmp_path, described):
    run_dir = tmp_path / "run"
    assert call("doctor", *described, "--synthesis.coefficients.tv", "0.5", "--run-dir", run_dir).returncode == 0
    assert kept(run_dir)["tv"] == 0.5 and not (run_dir / "journal.jsonl").exists()


BAD = [
    (["--synthesis.coefficients.tv", "automatic"], "synthesis.coefficients.tv = 'automatic'"),
    (["--synthesis.coefficients.l2", "auto"], "synthesis.coefficients.l2 = 'auto'"),
    (["--synthesis.coefficients.tv", "auto", "--synthesis.method", "fast"], "synthesis.coefficients.tv = 'auto'"),
    ([*AUTOMATIC, "--teacher.checkpoint", "nowhere.pt"], "teacher.checkpoint = 'nowhere.pt'"),
    ([*AUTOMATIC, "--real", "nowhere"], "real = 'nowhere'"),
]


@pytest.mark.parametrize(("options", "told"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_work_is_refused_in_one_sentence(options, told, tmp_path, described):
    done = call("doctor", *described, *options, "--run-dir", tmp_path / "run")
    assert done.returncode == 2 and done.stderr.startswith(f"error: {told}: must be ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_must_be_trained_is_trained_once_and_after_all_checks(tmp_path):
    given = ["--teacher.arguments.width", str(WIDTH), "--training.epochs", "1", "--training.library", str(tmp_path)]
    given += ["--run-dir", str(tmp_path / "run"), *AUTOMATIC]
    config = parse(SynthesizeConfig, "synthesize", given).config

    def refuse(*given: object) -> None:
        raise InputError("real", "nowhere", "images", "name some")

    with pytest.raises(InputError, match="nowhere"):
        with_coefficients(config, refuse, None, Console())
    assert not list(tmp_path.glob("*.safetensors"))
    checked = []
    chosen, noted = with_coefficients(config, lambda config, *others: checked.append(config), None, Console())
    (made,) = tmp_path.glob("*.safetensors")
    first = made.stat().st_mtime_ns
    assert with_coefficients(config, lambda *given: None, None, Console()) == (chosen, noted)
    assert made.stat().st_mtime_ns == first
    assert not chosen.synthesis.coefficients.automatic and not checked[0].synthesis.coefficients.automatic


def test_outside_a_terminal_it_says_what_is_waited_for(described, monkeypatch):
    monkeypatch.setattr(progress, "LINE_S", 0.001)
    given = [*described[:2], *AUTOMATIC, "--run-dir", "x"]
    config, out = parse(SynthesizeConfig, "synthesize", given).config, io.StringIO()
    with_coefficients(config, lambda *given: time.sleep(0.1), None, Console(file=out, width=200))
    lines = out.getvalue().splitlines()
    for what in ("networks and data to be checked", "the coefficients, and the teacher that they are chosen for"):
        assert [line for line in lines if line.endswith(f"waiting for {what}")], lines


@pytest.mark.parametrize("config", [DoctorConfig(), TeacherJobConfig()], ids=["named", "no synthesis"])
def test_other_settings_are_not_looked_at(config):
    assert with_coefficients(config, lambda *given: pytest.fail("checked"), None, Console()) == (config, "")
