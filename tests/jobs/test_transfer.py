"""Training a student on a finished set of images."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import ray.data
import ray.train
import ray.train.torch
import safetensors.torch
import torch
import yaml
from PIL import Image

from raydream.applications.transfer import run_epochs
from raydream.cli import parse
from raydream.config import TransferConfig
from raydream.config.conversion import validate
from raydream.data import ImageSet, load_data
from raydream.data.files import open_files
from raydream.data.sources import Images
from raydream.errors import InputError
from raydream.evaluation.accuracy import logits_of
from raydream.evaluation.comparison import beside
from raydream.jobs.checks.transfer import check_transfer
from raydream.machine import machine_cpus
from raydream.networks import build_network, build_student
from raydream.runs.references import resolve
from raydream.runtime.checkpoints import steps_saved
from raydream.runtime.placement import check_workers, workers_beside_reading
from raydream.schedule import Epochs
from raydream.store.folders import folder_at
from raydream.store.shards import ShardStore
from raydream.teachers.loading import load_teacher
from tests.calls import call, run, start, wait_until
from tests.chaos.faults import kill, noted
from tests.conftest import Job
from tests.tiny import finished_images, some_batch

EPOCHS = Epochs(images=50, batch_size=20, count=3)  # steps of 17, 17 and 16


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that made 50 images, of uneven batches."""
    return finished_images(tmp_path_factory.mktemp("images") / "run", (17, 17, 16))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    student = {"arguments": {"width": 4}, "batch_size": EPOCHS.batch_size, "precision": "fp32", "view": {"mixup": 0.2}}
    student |= {"warm_up": 2, "clip_norm": 1.0, "ema": 0.5}
    path = tmp_path_factory.mktemp("config") / "tiny_transfer.yaml"
    path.write_text(yaml.safe_dump({"images": str(images), "epochs": EPOCHS.count, "seed": 7, "student": student}))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, config: Path, own_ray: None) -> Path:
    """A finished run, from memory, as a user starts it: on a private Ray."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    done = run("transfer", "--config", config, "--run-dir", run_dir)
    assert_done(done, run_dir, "memory")
    return run_dir


def assert_done(done, run_dir: Path, feed: str) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "" and "WARNING" not in done.stdout, done.stdout + done.stderr
    for name in ("config.yaml", "metrics.parquet", "student.safetensors", "teacher.safetensors", "report.html"):
        assert (run_dir / name).stat().st_size > 0, name
    assert not list(run_dir.rglob(".*aside")) and list((run_dir / "tensorboard").iterdir())
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["feed"] == feed and summary["images"] == 50
    assert summary["epochs"] == 3 and summary["distillation_steps"] == 9
    assert summary["student_parameters"] < summary["teacher_parameters"]
    assert 0 <= summary["student_wait_share"] <= 1
    metrics = pd.read_parquet(run_dir / "metrics.parquet")
    measured = metrics[metrics["name"] == "accuracy/validation"]
    assert measured["step"].tolist() == [3, 6, 9]
    best = min(zip(-measured["value"], measured["step"], strict=True))  # of equals the first
    test = metrics[metrics["name"] == "accuracy/test"].set_index("step")["value"]
    assert summary["student_accuracy_best_step"] == best[1] and summary["student_accuracy_best"] == test[best[1]]
    assert summary["student_accuracy"] == test[9] and 0 < summary["teacher_accuracy"] <= 1
    assert_examined(run_dir, summary)
    assert "epoch 3/3" in done.stdout and "chosen on validation" in done.stdout


def assert_examined(run_dir: Path, summary: dict[str, Any]) -> None:
    """The summary says of student and teacher what their weights say of the test images."""
    config = validate(TransferConfig, yaml.safe_load((run_dir / "config.yaml").read_text()))
    real = load_data(config.data, config.teacher)
    assert real is not None
    student = build_student(config.student, config.teacher)
    student.load_state_dict(weights_of(run_dir))
    teacher = load_teacher(replace(config.teacher, checkpoint=str(run_dir / "teacher.safetensors")))
    told = [logits_of(network, teacher.normalization, real.test.images) for network in (student, teacher.network)]
    expected = beside(told[0], told[1], real.test.labels)
    for name in ("agreement", "student_accuracy_by_class", "teacher_accuracy_by_class"):
        assert summary[name] == expected[name], name
    for name in ("student_calibration_error", "teacher_calibration_error"):
        assert summary[name] == pytest.approx(expected[name], abs=1e-4), name
    hits = np.array(summary["student_accuracy_by_class"]) * np.bincount(real.test.labels)
    assert hits.sum() == pytest.approx(summary["student_accuracy"] * summary["test_images"])
    report = (run_dir / "report.html").read_text()
    assert "Student beside teacher" in report


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run_dir / "student.safetensors")


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.long
def test_a_streamed_run_leaves_what_one_from_memory_leaves(
    trained: Path, config: Path, tmp_path: Path, job: Job
) -> None:
    done = job("transfer", "--config", config, "--feed", "stream", "--run-dir", tmp_path / "run")
    assert_done(done, tmp_path / "run", "stream")
    assert weights_of(trained).keys() == weights_of(tmp_path / "run").keys()


def test_a_run_from_memory_equals_a_plain_loop_to_the_bit(trained: Path, images: Path) -> None:
    assert_same_weights(plain_loop(trained, images), weights_of(trained))


def plain_loop(run_dir: Path, images: Path | np.ndarray) -> dict[str, torch.Tensor]:
    """The student that a run should have, without Ray."""
    config = validate(TransferConfig, yaml.safe_load((run_dir / "config.yaml").read_text()))
    if isinstance(images, Path):
        images = np.concatenate([batch.images for batch in ImageSet(images).batches()])
    teacher = load_teacher(replace(config.teacher, checkpoint=str(run_dir / "teacher.safetensors")))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run_epochs(config.student, teacher, images, config.epochs, 7).state_dict()
    finally:
        torch.set_num_threads(threads)


def test_images_that_others_made_are_learned_from_and_other_runs_stand_beside(
    trained: Path, config: Path, tmp_path: Path, job: Job
) -> None:
    settings = yaml.safe_load((trained / "config.yaml").read_text())
    teacher = settings["teacher"] | {"checkpoint": str(trained / "teacher.safetensors")}
    pixels = np.random.default_rng(1).integers(0, 256, (120, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "proxy.npz", x=pixels)
    asked = {"images": str(tmp_path / "proxy.npz"), "share": 0.5, "teacher": teacher, "student": settings["student"]}
    (tmp_path / "proxy.yaml").write_text(yaml.safe_dump({**asked, "epochs": 3, "seed": 7, "compare": str(trained)}))
    run_dir = tmp_path / "run"
    done = job("transfer", "--config", tmp_path / "proxy.yaml", "--run-dir", run_dir)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    chosen = Images.of(open_files(asked["images"], "images", (1, 8, 8)), 0.5, 7).rows
    assert len(chosen) == 60
    assert_same_weights(plain_loop(run_dir, pixels[chosen][:, None]), weights_of(run_dir))
    summary, other = (json.loads((folder / "summary.json").read_text()) for folder in (run_dir, trained))
    assert summary["images"] == 60 and summary["images_of"] == asked["images"]
    assert_examined(run_dir, summary)
    (beside_it,) = summary["compared"]
    assert beside_it["run"] == str(trained) and beside_it["student_accuracy"] == other["student_accuracy"]
    assert beside_it["differs"] == {"images": settings["images"], "share": 1.0}
    report = (run_dir / "report.html").read_text()
    assert "Beside other runs" in report and "share: 1.0" in report


@pytest.mark.chaos
def test_a_run_makes_its_images_first_and_goes_on_after_kills_in_both_stages(
    library: Path, tmp_path: Path, job: Job
) -> None:
    settings = {
        "teacher": {"network": "digits", "arguments": {"width": 8}},
        "training": {"epochs": 4, "library": str(library)},
        "new_images": 50,
        "synthesis": {"method": "noise", "batch_size": 10, "iterations": 40, "learning_rate": 0.1, "precision": "fp32"},
        "epochs": 30,
        "student": {"arguments": {"width": 4}, "batch_size": 20, "precision": "fp32", "ema": 0.5},
        "generators": {"cpus": 0.5},
        "seed": 7,
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(settings))
    run_dir = tmp_path / "run"
    process = start("transfer", "--config", tmp_path / "own.yaml", "--run-dir", run_dir)
    store = ShardStore(run_dir / "images")
    wait_until(lambda: len(store.committed()) >= 2, process)
    kill_all(process)
    assert len(store.committed()) < 5 and not (run_dir / "checkpoints").exists()
    before = {path: path.stat().st_mtime_ns for path in (run_dir / "images").glob("*.parquet")}
    process = start("transfer", "--resume", run_dir)
    wait_until(lambda: steps_saved(folder_at(run_dir / "checkpoints")) >= 3, process)
    kill_all(process)
    done = job("transfer", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(store.committed()) == 5
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["images"] == 50 and summary["images_of"] == "this run, by noise"
    pixels = np.concatenate([batch.images for batch in ImageSet(run_dir).batches()])
    assert_same_weights(plain_loop(run_dir, pixels), weights_of(run_dir))
    assert (run_dir / "images.png").stat().st_size > 0
    assert_examined(run_dir, summary)


def kill_all(job) -> None:
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()


@pytest.mark.chaos
def test_a_killed_worker_or_train_job_costs_an_epoch_at_most(images: Path, config: Path, tmp_path: Path) -> None:
    run_dir, reached = tmp_path / "run", 0
    process = start("transfer", "--config", config, "--epochs", "30", "--feed", "stream", "--run-dir", run_dir)
    for kind in ("ray::RayTrainWorker", "ray::train"):
        wait_until(lambda: steps_saved(folder_at(run_dir / "checkpoints")) > reached, process)  # noqa: B023
        wait_until(lambda: bool(kill(process.pid, kind)), process)  # noqa: B023
        reached = steps_saved(folder_at(run_dir / "checkpoints"))
    out, error = process.communicate(timeout=250)
    assert process.returncode == 0, out + error
    assert "the student was restarted and resumes from step" in noted(run_dir)
    metrics = pd.read_parquet(run_dir / "metrics.parquet")
    assert set(metrics.loc[metrics["name"] == "accuracy/test", "step"]) == set(range(3, 91, 3))


def test_a_run_that_is_done_trains_nothing_again(trained: Path) -> None:
    before = (trained / "student.safetensors").stat().st_mtime_ns
    again = call("transfer", "--resume", trained)
    assert again.returncode == 0 and "epoch" not in again.stdout.split("┌")[0], again.stdout
    assert (trained / "student.safetensors").stat().st_mtime_ns == before


def test_a_run_stands_for_its_student(trained: Path) -> None:
    teacher = resolve({"teacher": {"network": f"run:{trained}"}})["teacher"]
    assert teacher["checkpoint"] == str(trained / "student.safetensors") and teacher["arguments"] == {"width": 4}


DIGITS = ["--teacher.network", "digits"]
BAD = [
    # (options, the field that the sentence names, a part of what it says)
    (["--images", ""], "images", "the folder of a run that has images, or other images"),
    (["--images", "no_such_run"], "images", "the folder of a run"),
    (["--images", "{tmp}/empty"], "images", "the folder of a run"),
    (["--images", "{tmp}/unfinished"], "images", "a run that is done; resume it"),
    (["--images", "{tmp}/damaged"], "images", "a run that is done; the shard"),
    (["--images", "{tmp}/wide"], "images", "there are images (3, 4, 6)"),
    (
        ["--images", "{tmp}/wide/images", "--teacher.network", "digits"],
        "images",
        "a run with images (1, 8, 8), as teacher.input_shape says; there are images (3, 4, 6)",
    ),
    (["--images", "{tmp}/proxy.npz"], "images", "the folder of a run where no teacher is named"),
    ([*DIGITS, "--images", "{tmp}/none.parquet"], "images", "a folder of pictures; nothing is there"),
    ([*DIGITS, "--images", "{tmp}/large.npz"], "images", "images (1, 8, 8); those in large.npz are (1, 9, 8)"),
    ([*DIGITS, "--images", "{tmp}/pictures"], "images", "images (1, 8, 8); {tmp}/pictures/1.png is (1, 4, 4)"),
    ([*DIGITS, "--images", "{tmp}/proxy.npz", "--share", "0.1"], "student.batch_size", "at most 6, the images in"),
    ([*DIGITS, "--images", "{tmp}/proxy.npz", "--data.name", "none"], "teacher.checkpoint", "the path of a checkpoint"),
    ([*DIGITS, "--images", "", "--share", "0.5"], "share", "1 where no images are named; make fewer (new_images)"),
    ([*DIGITS, "--images", "", "--new_images", "19"], "student.batch_size", "at most 19, the images to be made"),
    ([*DIGITS, "--images", "", "--synthesis.method", "adaptive"], "synthesis.method", "raydream distill trains"),
    ([*DIGITS, "--images", "", "--synthesis.targets.rule", "listed"], "synthesis.targets.classes", "given with"),
    (["--share", "0"], "share", "greater than 0"),
    (["--share", "1.5"], "share", "less than or equal to 1"),
    (["--new_images", "0"], "new_images", "greater than or equal to 1"),
    (["--compare", "no_such_run"], "compare", "the folder of a run"),
    (["--compare", "{tmp}/unfinished"], "compare", "runs of this job that are done"),
    (["--student.ema", "1"], "student.ema", "less than 1"),
    (["--student.clip_norm", "0"], "student.clip_norm", "greater than 0"),
    (["--student.decay", "linear"], "student.decay", "'constant', 'cosine' or 'step'"),
    (["--data.name", "files"], "data.test", "name what to report on"),
    (["--data.name", "files", "--data.test", "{tmp}/proxy.npz"], "data.validation", "set data.validation_of to test"),
    (
        ["--data.name", "files", "--data.test", "{tmp}/proxy.npz", "--data.validation_of", "test"],
        "data.test",
        "labeled, by y [N]",
    ),
    (["--data.name", "torchvision:MNIST"], "data.folder", "the folder where"),
    (["--epochs", "0"], "epochs", "greater than or equal to 1"),
    (["--feed", "disk"], "feed", "'auto', 'memory' or 'stream'"),
    (["--stall_timeout_s", "0"], "stall_timeout_s", "greater than 0"),
    (["--student.batch_size", "51"], "student.batch_size", "at most 50"),
    (["--student.workers", "3"], "student.workers", "a divisor of student.batch_size (20)"),
    (["--student.network", "digitz"], "student.network", "one of digits"),
    (["--student.arguments", "{{width: -1}}"], "student.arguments", "what digits takes"),
    (["--teacher.network", "run:no_such_run"], "teacher.network", "the folder of a run"),
    (["--data.name", "mnist"], "data.name", "digits, files, torchvision:NAME or none"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """Sets of images that cannot be used."""
    folder = tmp_path_factory.mktemp("broken")
    for name in ("empty", "unfinished", "damaged", "wide"):
        shutil.copytree(images, folder / name)
    shutil.rmtree(folder / "empty" / "images")
    (folder / "unfinished" / "summary.json").unlink()
    (folder / "damaged" / "images" / "r0000-b0001.parquet").write_bytes(b"PAR1")
    ShardStore(folder / "wide" / "images").write(some_batch())
    np.savez(folder / "proxy.npz", x=np.zeros((60, 8, 8), np.uint8))
    np.savez(folder / "large.npz", x=np.zeros((60, 9, 8), np.uint8))
    (folder / "pictures").mkdir()
    for index in range(60):
        Image.fromarray(np.zeros((4, 4) if index == 1 else (8, 8), np.uint8)).save(folder / "pictures" / f"{index}.png")
    return folder


@pytest.mark.parametrize(("options", "field", "says"), BAD, ids=lambda value: " ".join(value)[:40] if value else "")
def test_bad_input_is_found_before_ray_starts(
    options: list[str], field: str, says: str, config: Path, broken: Path, tmp_path: Path
) -> None:
    given = [option.format(tmp=broken) for option in options]
    with pytest.raises(InputError) as refused:
        check_transfer(
            parse(TransferConfig, "", ["--config", str(config), "--run-dir", str(tmp_path / "run"), *given]).config
        )
    assert refused.value.field == field and says.format(tmp=broken) in str(refused.value), str(refused.value)
    assert not (tmp_path / "run").exists() and not ray.is_initialized()


def test_values_at_the_boundary_are_taken(config: Path, tmp_path: Path) -> None:
    given = ["--config", str(config), "--run-dir", str(tmp_path / "run"), "--student.batch_size", "50", "--epochs", "1"]
    assert check_transfer(parse(TransferConfig, "", given).config).epochs == Epochs(50, 50, 1)


def test_real_data_of_another_shape_are_refused(images: Path, config: Path, tmp_path: Path) -> None:
    colors = tmp_path / "colors"
    shutil.copytree(images, colors)
    shutil.rmtree(colors / "images")
    ShardStore(colors / "images").write(some_batch(shape=(3, 8, 8)))
    settings = yaml.safe_load((colors / "config.yaml").read_text())
    told = {"network": "cifar_resnet20", "arguments": {}, "input_shape": [3, 8, 8], "mean": [0.5] * 3, "std": [0.2] * 3}
    settings["teacher"] |= told
    (colors / "config.yaml").write_text(yaml.safe_dump(settings))
    network = build_network("cifar_resnet20", {}, 3, 10)
    safetensors.torch.save_file(network.state_dict(), colors / "teacher.safetensors")
    given = ["--images", str(colors), "--student.network", "cifar_resnet20", "--student.batch_size", "5"]
    with pytest.raises(InputError, match=r"data.name = 'digits'.*its images are"):
        check_transfer(parse(TransferConfig, "", [*given, "--run-dir", str(tmp_path / "run")]).config)
    check_transfer(
        parse(TransferConfig, "", [*given, "--data.name", "none", "--run-dir", str(tmp_path / "run")]).config
    )


def test_a_job_answers_bad_input_in_one_sentence(config: Path, tmp_path: Path) -> None:
    done = call("transfer", "--config", config, "--student.cpus", "99", "--run-dir", tmp_path / "run")
    assert done.returncode == 2 and done.stderr.startswith("error: student.cpus = 99"), done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()
    all_of_them = ["--feed", "stream", "--student.cpus", str(machine_cpus()), "--run-dir", tmp_path / "run"]
    done = call("transfer", "--config", config, *all_of_them)
    assert done.returncode == 2 and "beside 0.5 CPUs for reading images" in done.stderr, done.stderr


ROOM = [
    # (CPUs of a worker, workers, the fewest, CPUs for reading, CPUs there, GPUs there): workers that fit
    ((0.5, 1, None, 0.0, 0.5, 0), 1),
    ((0.5, 1, None, 0.5, 0.5, 0), 0),
    ((0.5, 1, None, 0.5, 1.0, 0), 1),
    ((1.0, 4, None, 0.5, 4.0, 0), 0),
    ((1.0, 4, 1, 0.5, 4.0, 0), 2),  # 3 do not split 20 images
    ((1.0, 4, 1, 0.0, 4.0, 0), 4),
]


@pytest.mark.parametrize(("room", "fit"), ROOM)
def test_workers_leave_room_for_what_reads_their_images(room: tuple, fit: int) -> None:
    cpus, workers, fewest, reading, there, gpus = room
    student = {"cpus": cpus, "workers": workers, "min_workers": fewest, "batch_size": 20}
    config = validate(TransferConfig, {"images": "x", "teacher": {"checkpoint": "x"}, "student": student})
    assert workers_beside_reading(config, reading, [{"CPU": there, "GPU": gpus}]) == fit
    if fit:
        check_workers(config, reading, [{"CPU": there, "GPU": gpus}])
    else:
        with pytest.raises(InputError, match=r"student.cpus = .*reading images, and there are"):
            check_workers(config, reading, [{"CPU": there, "GPU": gpus}])


def test_a_gpu_that_nobody_reserves_is_refused() -> None:
    config = validate(TransferConfig, {"images": "x", "teacher": {"checkpoint": "x"}, "device": "cuda"})
    with pytest.raises(InputError, match=r"student.gpus = 0.0: must be > 0 where device is cuda"):
        check_workers(config, 0.0, [{"CPU": 8, "GPU": 1}])
    shared = replace(config, student=replace(config.student, gpus=1.0))
    check_workers(shared, 0.0, [{"CPU": 8, "GPU": 1}])
    with pytest.raises(InputError, match=r"student.gpus = 1.0: must be at most 0; 1 workers reserve 1 GPUS, and there"):
        check_workers(shared, 0.0, [{"CPU": 8, "GPU": 0}])
