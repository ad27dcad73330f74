"""Jobs as they are submitted to a cluster: `ray job submit --working-dir . --runtime-env runtime_env.yaml -- …`."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.calls import assert_same_images, images_of
from tests.cluster.conftest import ENV, Head
from tests.tiny import finished_images

pytestmark = pytest.mark.cluster

TINY = "tests/tiny.yaml"


def test_every_job_can_be_submitted(head: Head, tmp_path: Path) -> None:
    run, images = tmp_path / "run", tmp_path / "images"
    done = head.submit("jobs/distill.py", "--config", TINY, "--run-dir", run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "student, last" in done.stdout and "succeeded" in done.stdout
    assert len(images_of(run)) == 9
    assert (run / "report.html").is_file()
    assert_logs_are_named(head, json.loads((run / "run.json").read_text())["run"])
    few = ["--synthesis.batch_size", "20", "--synthesis.iterations", "5", "--generators.cpus", "0.4"]
    few += ["--teacher.network", f"run:{run}"]
    made = head.submit("jobs/synthesize.py", *few, "--images", "20", "--run-dir", images)
    assert made.returncode == 0, made.stdout + made.stderr
    judged = head.submit(
        "jobs/evaluate.py", "--images", images, "--verifiers", f"run:{run}", "--run-dir", tmp_path / "judged"
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert json.loads((tmp_path / "judged" / "summary.json").read_text())["images"] == 20
    transferred = head.submit(
        "jobs/transfer.py", "--images", images, "--epochs", "2", "--student.batch_size", "10", "--run-dir",
        tmp_path / "transferred",
    )  # fmt: skip
    assert transferred.returncode == 0, transferred.stdout + transferred.stderr
    taught = head.submit(
        "jobs/train_teacher.py", "--config", "configs/digits_teacher.yaml", "--training.epochs", "1", "--run-dir",
        tmp_path / "taught",
    )  # fmt: skip
    assert taught.returncode == 0, taught.stdout + taught.stderr
    searched = head.submit(
        "tuning/search.py", "--config", TINY, "--space", "tests/tiny_space.yaml", "--trials", "3", "--run-dir",
        tmp_path / "searched",
    )  # fmt: skip
    assert searched.returncode == 0, searched.stdout + searched.stderr
    assert json.loads((tmp_path / "searched" / "summary.json").read_text())["trials"] == 3
    assert (tmp_path / "searched" / "best.yaml").is_file()


def test_a_command_can_be_submitted_from_an_empty_directory(head: Head, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    few = ["--teacher.arguments.width", "8", "--training.epochs", "1", "--training.library", tmp_path / "teachers"]
    few += ["--synthesis.batch_size", "20", "--synthesis.iterations", "5", "--student.batch_size", "20"]
    few += ["--buffer.samples_per_insert", "60", "--rounds.count", "1", "--rounds.batches", "1"]
    few += ["--rounds.final_steps", "5", "--generators.cpus", "0.4", "--student.cpus", "0.4", "--reuse", ""]
    done = head.submit_command(tmp_path / "empty", "distill", "--config", "digits", *few, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "student, last" in done.stdout and len(images_of(tmp_path / "run")) == 5


def test_a_pruning_can_be_submitted(head: Head, tmp_path: Path) -> None:
    few = ["--pruning.steps", "1", "--pruning.epochs", "1", "--student.batch_size", "20"]
    images = finished_images(tmp_path / "images")
    pruned = head.submit("jobs/prune.py", "--images", images, *few, "--run-dir", tmp_path / "pruned")
    assert pruned.returncode == 0, pruned.stdout + pruned.stderr
    assert json.loads((tmp_path / "pruned" / "summary.json").read_text())["filters_ratio"] <= 0.5


def assert_logs_are_named(head: Head, run: str) -> None:
    """Every process of a run says who it is, where Ray keeps what it logs."""
    logs = "".join(path.read_text(errors="replace") for path in head.session.glob("logs/worker-*.err"))
    said = ["generator 0: made batch r0000-b", "generator 1: made", "student 0: checkpoint"]
    for who in said:
        assert f"INFO {run} {who}" in logs, who


def test_a_stopped_job_goes_on_from_its_folder(head: Head, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    begun = head.submit("jobs/distill.py", "--config", TINY, "--run-dir", run_dir, wait=False)
    (job,) = set(re.findall(r"raysubmit_\w+", begun.stdout))
    deadline = time.monotonic() + 120
    while not (run_dir / "images" / "r0000-b0002.parquet").exists():
        assert time.monotonic() < deadline, head.ray("job", "logs", "--address", head.address, job).stdout
        time.sleep(0.1)
    stopped = head.ray("job", "stop", "--address", head.address, job)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    kept = images_of(run_dir)
    assert not (run_dir / "summary.json").exists()
    done = head.submit("jobs/distill.py", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    whole = images_of(run_dir)
    assert len(whole) == 9 and json.loads((run_dir / "summary.json").read_text())["images"] == 9 * len(
        whole["r0000-b0000"]
    )
    assert_same_images(kept, {batch: whole[batch] for batch in kept})


@pytest.mark.parametrize("options", [[], ["--run-dir", "runs/mine"]], ids=" ".join)
def test_a_job_whose_folder_would_be_lost_is_refused(head: Head, options: list[str]) -> None:
    done = head.submit("jobs/distill.py", "--config", TINY, *options)
    assert done.returncode == 1
    assert "error: --run-dir = " in done.stdout and "an absolute path that all nodes reach" in done.stdout
    assert "exit code 2" in done.stdout + done.stderr


def test_nobody_without_the_token_is_let_in(head: Head) -> None:
    stranger = replace(head, env={**ENV, "RAY_AUTH_MODE": "disabled"})
    refused = stranger.ray("job", "list", "--address", head.address)
    assert refused.returncode != 0 and "token" in refused.stdout + refused.stderr
