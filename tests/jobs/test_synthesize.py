"""The jobs that make images and let other networks judge them."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
import ray.data
import yaml

from raydream.data import ImageSet
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from tests.calls import assert_same_images, call, images_of, start, wait_until
from tests.conftest import Job
from tests.tiny import finished_images

SETTINGS = {
    "experiment": "tiny_images",
    "images": 25,
    "reuse": "",
    "teacher": {"arguments": {"width": 8}},
    "training": {"epochs": 4},
    "synthesis": {"batch_size": 10, "iterations": 15, "learning_rate": 0.1, "jitter": 1},
    "generators": {"count": 2, "cpus": 0.5},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny_images.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "training": {"epochs": 4, "library": str(library)}}))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, config: Path, job: Job) -> Path:
    run_dir = tmp_path_factory.mktemp("made") / "run"
    done = job("synthesize", "--config", config, "--png", "true", "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "" and "25 in 3 batches" in done.stdout
    return run_dir


def test_a_data_set_has_its_images_its_figures_and_a_card(made: Path) -> None:
    sizes = {batch: len(images) for batch, images in images_of(made).items()}
    assert sizes == {"r0000-b0000": 9, "r0000-b0001": 8, "r0000-b0002": 8}, "as even as they can be"
    summary = json.loads((made / "summary.json").read_text())
    images = ImageSet(made)
    targets = np.array([images[row][1] for row in range(25)])
    assert summary["images"] == len(images) == 25 and summary["images_per_class"] == np.bincount(targets).tolist()
    hits = [made.teacher_logits.argmax(1) == made.targets for made in images.batches()]
    assert summary["target_share"] == pytest.approx(np.concatenate(hits).mean())
    card = (made / "README.md").read_text()
    assert "25 of 1 x 8 x 8" in card and summary["teacher_fingerprint"] in card and "batch_size: 10" in card
    assert len(list((made / "png").rglob("*.png"))) == 25 and (made / "images.png").stat().st_size > 0
    assert not list(made.rglob(".*aside"))


def test_the_cards_four_ways_to_open_it_agree(made: Path, cluster: str) -> None:
    frame = pd.read_parquet(made / "images")
    with ray.init(address=cluster, log_to_driver=False):
        streamed = ray.data.read_parquet(str(made / "images")).to_pandas()
    order = ["batch", "row"]
    streamed = streamed.sort_values(order, ignore_index=True)
    assert frame["target"].tolist() == streamed["target"].tolist()
    images = ImageSet(made)
    for row in range(len(images)):
        assert np.array_equal(frame["image"][row].reshape(1, 8, 8), images[row][0])
        assert np.array_equal(np.asarray(streamed["image"][row]).reshape(1, 8, 8), images[row][0])


@pytest.mark.chaos
def test_a_killed_job_goes_on_and_makes_the_same_images(made: Path, config: Path, tmp_path: Path, job: Job) -> None:
    run_dir = tmp_path / "run"
    process = start("synthesize", "--config", config, "--generators.count", "1", "--run-dir", run_dir)
    wait_until(lambda: len(list((run_dir / "images").glob("*.parquet"))) >= 1, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in (run_dir / "images").glob("*.parquet")}
    assert kept and not (run_dir / "summary.json").exists()
    done = job("synthesize", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_images(images_of(made), images_of(run_dir))
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in (run_dir / "images").iterdir()}.items()


def test_images_may_start_from_those_of_another_run(made: Path, config: Path, tmp_path: Path, job: Job) -> None:
    done = job(
        "synthesize", "--config", config, "--images", "null", "--start_from", made, "--synthesis.learning_rate", "1e-9",
        "--run-dir", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    started, before = images_of(tmp_path / "run"), images_of(made)
    for batch, images in before.items():
        assert np.array_equal(started[batch].images, images.images)
        assert np.array_equal(started[batch].targets, images.targets)
        assert started[batch].provenance.source == batch


def test_other_networks_judge_the_images(made: Path, tmp_path: Path, job: Job) -> None:
    weights = made / "teacher.safetensors"
    described = {**SETTINGS["teacher"], "checkpoint": str(weights)}
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump({"images": str(made), "verifiers": [described]}))
    done = job("evaluate", "--config", tmp_path / "evaluate.yaml", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    teacher, verifier = summary["target_share"].values()
    assert teacher == verifier == json.loads((made / "summary.json").read_text())["target_share"]
    done = call("evaluate", "--images", made, "--verifiers", f"cifar_resnet20={weights}", "--run-dir", tmp_path / "no")
    assert done.returncode == 2 and done.stderr.startswith("error: verifiers.0.checkpoint = ")
    assert not (tmp_path / "no").exists()


BAD = [
    (["--synthesis.method", "adaptive"], "synthesis.method"),
    (["--start_from", "no_such_run"], "images"),
    (["--images", "null", "--start_from", "no_such_run"], "start_from"),
    (["--images", "0"], "images"),
    (["--synthesis.targets.rule", "listed"], "synthesis.targets.classes"),
    (["--synthesis.targets.rule", "listed", "--synthesis.targets.classes", "[10]"], "synthesis.targets.classes"),
    (["--generators.cpus", "9"], "generators.cpus"),
    (["--device", "cuda"], "generators.gpus"),
    (["--reuse", "s3://bucket/runs"], "reuse"),
    (["--teacher.network", "run:no_such_run"], "teacher.network"),
]


@pytest.mark.parametrize(
    ("options", "field"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_sentence_before_anything_is_written(
    options: list[str], field: str, config: Path, tmp_path: Path
) -> None:
    done = call("synthesize", "--config", config, *options, "--run-dir", tmp_path / "run")
    assert done.returncode == 2 and done.stderr.startswith(f"error: {field} = "), done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_the_images_of_a_distillation_are_judged_by_its_student(lockstep_run: Path, tmp_path: Path, job: Job) -> None:
    done = job(
        "evaluate", "--images", lockstep_run, "--verifiers", f"run:{lockstep_run}", "--run-dir", tmp_path / "run"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_second_run_makes_nothing_and_is_equal_to_the_bit(made: Path, config: Path, tmp_path: Path, job: Job) -> None:
    run_dir = tmp_path / "run"
    done = job("synthesize", "--config", config, "--reuse", made.parent, "--run-dir", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_images(images_of(made), images_of(run_dir))
    first = json.loads((made / "run.json").read_text())["run"]
    assert {batch.provenance.run for batch in images_of(run_dir).values()} == {first}
    summary, earlier = (json.loads((folder / "summary.json").read_text()) for folder in (run_dir, made))
    assert summary["reused"] == {first: 3} and earlier["reused"] == {}
    assert (summary["cpu_hours"], summary["gpu_hours"]) == (pytest.approx(summary["wall_s"] / 3600, rel=0.5), 0.0)
    assert f"3 batches were not made again, as run {first}" in done.stdout + (run_dir / "journal.jsonl").read_text()


def test_a_run_whose_images_are_all_there_has_only_to_tell_of_them(tmp_path: Path) -> None:
    first, second = (finished_images(tmp_path / name) for name in ("first", "second"))
    (second / "summary.json").unlink()
    for shard in (second / "images").iterdir():
        shard.unlink()
        ShardStore(second / "images").share(ShardStore(first / "images"), BatchId.parse(shard.stem))
    done = call("synthesize", "--resume", second)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    summary, maker = (
        json.loads((second / "summary.json").read_text()),
        json.loads((first / "run.json").read_text())["run"],
    )
    assert (summary["images"], summary["reused"]) == (40, {maker: 2})
    assert 0 < 3600 * summary["cpu_hours"] <= summary["wall_s"] and summary["gpu_hours"] == 0
    assert f"2 batches were not made again, as run {maker} had made them" in (second / "journal.jsonl").read_text()
    assert "made by earlier runs" in done.stdout and "CPU-hours" in done.stdout
