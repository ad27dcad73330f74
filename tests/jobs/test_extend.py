"""Continual learning: what a run leaves, kills, and bad input."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml

from raydream.applications.continual.course import Course, load_groups
from raydream.cli import parse
from raydream.config import ContinualConfig, DistillConfig
from raydream.config.conversion import validate
from raydream.errors import InputError
from raydream.jobs.checks.extend import check_continual
from raydream.networks.digits import digits_network
from raydream.teachers.checkpoints import save_network
from raydream.teachers.loading import load_teacher
from tests.calls import ROOT, call, start, wait_until
from tests.conftest import Job

METHODS, SEEDS, STEPS = ["deep_inversion", "lwf_mc", "oracle_classify"], 2, 2
TINY = {
    "experiment": "tiny_continual",
    "seed": 3,
    "seeds": SEEDS,
    "methods": METHODS,
    "teacher": {"arguments": {"width": 8}, "classes": 5},
    "training": {"epochs": 4},
    "data": {"name": "digits", "classes": [0, 1, 2, 3, 4]},
    "steps": [{"name": "digits", "classes": [5, 6, 7]}, {"name": "digits", "classes": [8, 9]}],
    "images_per_class": 4,
    "epochs": 3,
    "synthesis": {
        "batch_size": 20,
        "iterations": 8,
        "learning_rate": 0.1,
        "jitter": 1,
        "precision": "fp32",
        "coefficients": {"l2": 0.0},
    },
    "student": {"network": "teacher", "batch_size": 40, "precision": "fp32", "cpus": 1.0},
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "tiny_continual.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return path


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, library: Path) -> list[str]:
    return ["--config", str(written(tmp_path_factory.mktemp("config"))), "--training.library", str(library)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, options: list[str], job: Job) -> Path:
    """A finished run."""
    run_dir = tmp_path_factory.mktemp("continual") / "run"
    done = job("continual", *options, "--run-dir", run_dir)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert "lwf_mc (seed 4): all " in done.stdout and "forgetting" in done.stdout
    return run_dir


def weights_of(run_dir: Path, name: str) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run_dir / "courses" / f"{name}.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    names = sorted(path.stem for path in (one / "courses").glob("*.safetensors"))
    assert names == sorted(path.stem for path in (other / "courses").glob("*.safetensors"))
    for name in names:
        theirs = weights_of(other, name)
        for key, value in weights_of(one, name).items():
            assert torch.equal(value, theirs[key]), (name, key)


def test_a_run_leaves_what_it_says(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert list(summary["methods"]) == METHODS and summary["classes_by_group"] == [5, 3, 2]
    for method, values in summary["methods"].items():
        assert values["courses"] == SEEDS
        courses = [json.loads((finished / "courses" / f"{method}-{seed}-{STEPS}.json").read_text()) for seed in (3, 4)]
        matrices = [np.array(course["confusion"]) for course in courses]
        shares = [np.trace(matrix) / matrix.sum() for matrix in matrices]
        assert values["accuracy_all"] == pytest.approx(np.mean(shares))
        assert values["accuracy_all_spread"] == pytest.approx(np.std(shares, ddof=1))
        new = [np.trace(matrix[8:, 8:]) / matrix[8:].sum() for matrix in matrices]
        assert values["accuracy_new"] == pytest.approx(np.mean(new))
        assert np.array(values["confusion"]).sum() == SEEDS * summary["test_images"] == SEEDS * 500
        assert values["steps"][0]["accuracy_all"] == pytest.approx(summary["teacher_accuracy"])
        assert len(values["steps"]) == 3 and len(values["steps"][2]["accuracy_by_group"]) == 3
    table = pd.read_parquet(finished / "courses.parquet")
    assert len(table) == len(METHODS) * SEEDS * (STEPS + 1)
    page = (finished / "report.html").read_text()
    assert "Confusion matrices" in page and "What stood for the old classes" in page and "oracle_classify" in page
    for name in ("metrics.parquet", "teacher.safetensors", "config.yaml"):
        assert (finished / name).stat().st_size > 0
    assert not list(finished.rglob(".*aside")) and not (finished / "journal.jsonl").exists()


def test_the_network_of_the_first_method_is_loaded_by_its_run(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "next.yaml"
    path.write_text(yaml.safe_dump({"teacher": {"network": f"run:{finished}"}, "data": {"name": "digits"}}))
    config = parse(DistillConfig, "", ["--config", str(path), "--run-dir", str(tmp_path / "run")]).config
    extended, kept = load_teacher(config.teacher), weights_of(finished, "deep_inversion-3-2")
    assert extended.config.classes == 10
    for name, value in extended.network.state_dict().items():
        assert torch.equal(value, kept[f"network.{name}"]), name


def test_a_course_equals_one_without_ray_to_the_bit(finished: Path) -> None:
    config = validate(ContinualConfig, yaml.safe_load((finished / "config.yaml").read_text()))
    described = {**TINY["teacher"], "checkpoint": str(finished / "teacher.safetensors")}
    teacher = load_teacher(validate(ContinualConfig, {**TINY, "teacher": described}).teacher)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        *_, last = Course(config, "deep_inversion", 4, teacher, load_groups(config)).steps()
    finally:
        torch.set_num_threads(threads)
    kept = weights_of(finished, "deep_inversion-4-2")
    for name, value in last.network.state_dict().items():
        assert torch.equal(value, kept[f"network.{name}"]), name
    assert torch.equal(torch.from_numpy(last.images), kept["images"])


@pytest.mark.chaos
def test_a_killed_run_goes_on_and_takes_nothing_twice(
    finished: Path, options: list[str], tmp_path: Path, job: Job
) -> None:
    run_dir = tmp_path / "run"
    process = start("continual", *options, "--run-dir", run_dir)
    courses = run_dir / "courses"
    wait_until(lambda: len(list(courses.glob("*.json"))) >= 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in courses.glob("*.json")}
    assert 3 <= len(before) < len(METHODS) * SEEDS * STEPS and not (run_dir / "summary.json").exists()
    done = job("continual", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    after = {path.name: path.stat().st_mtime_ns for path in courses.glob("*.json")}
    assert {name: after[name] for name in before} == before
    assert_same_weights(finished, run_dir)


@pytest.mark.chaos
def test_a_damaged_step_is_taken_again(finished: Path, tmp_path: Path, job: Job) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    (run_dir / "summary.json").unlink()
    (run_dir / "courses" / "lwf_mc-3-2.json").unlink()
    damaged = run_dir / "courses" / "lwf_mc-3-1.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"0000")
    done = job("continual", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_weights(finished, run_dir)


BAD = [
    # (changes, the field that the sentence names, a part of what it says)
    ({"steps": []}, "steps", "new classes for each step"),
    ({"steps": [{"name": "digits"}]}, "steps.0.classes", "one class at least"),
    ({"steps": [{"name": "digits", "classes": [5, 5]}]}, "steps.0.classes", "5 is named twice"),
    ({"steps": [{"name": "digits", "classes": [4, 5]}]}, "steps.0.classes", "4 is named before"),
    (
        {"steps": [{"name": "digits", "classes": [5]}, {"name": "digits", "classes": [6, 5]}]},
        "steps.1.classes",
        "5 is named before",
    ),
    ({"steps": [{"name": "none", "classes": [5]}]}, "steps.0.name", "a data set"),
    ({"data": {"name": "none"}}, "data.name", "to measure on"),
    ({"methods": ["finetune", "finetune"]}, "methods", "each method once"),
    ({"methods": []}, "methods", "at least 1 item"),
    ({"methods": ["icarl"]}, "methods", "one of deep_inversion, adaptive"),
    ({"images_per_class": 0}, "images_per_class", "greater than or equal to 1"),
    ({"epochs": 0}, "epochs", "greater than or equal to 1"),
    ({"seeds": 0}, "seeds", "greater than or equal to 1"),
    ({"student": {"network": "digits"}}, "student.network", "the teacher itself learns"),
    ({"student": {"network": "teacher", "ema": 0.9}}, "student.ema", "in one process of its own"),
    ({"student": {"network": "teacher", "view": {"mixup": 1.0}}}, "student.view.mixup", "no one label"),
    ({"device": "cuda"}, "student.gpus", "> 0 where device is cuda"),
]


@pytest.mark.parametrize(("changes", "field", "says"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_a_bad_setting_is_named_with_what_is_allowed(changes, field: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        parse(ContinualConfig, "", ["--config", str(written(tmp_path, **changes)), "--run-dir", str(tmp_path / "run")])
    assert caught.value.field.startswith(field) and says in str(caught.value), str(caught.value)
    assert not (tmp_path / "run").exists()


def no_linear(classes: int = 5) -> torch.nn.Module:
    """A convolution makes the outputs."""
    last = torch.nn.Conv2d(4, classes, 1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), last, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )


def no_outputs(classes: int = 5) -> torch.nn.Module:
    """Something follows the last layer."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes), torch.nn.Softmax(1))


UNFIT = [
    ({"teacher": {"classes": 6, "arguments": {"width": 8}}}, "data.classes", "6 classes, as teacher.classes says"),
    ({"steps": [{"name": "digits", "classes": [5, 11]}]}, "steps.0.classes", "there is none of class 11"),
    ({"steps": [{"name": "files", "test": "none.npz", "train": "none.npz", "classes": [1]}]}, "steps.0.train", ""),
    ({"teacher": {"network": f"{__name__}:no_outputs", "classes": 5}}, "teacher.network", "last layer's outputs"),
    ({"teacher": {"network": f"{__name__}:no_linear", "classes": 5}, "methods": ["abd"]}, "methods", "linear"),
    (
        {"teacher": {"arguments": {"width": 8}, "classes": 5, "checkpoint": "{tmp}/fresh.safetensors"}},
        "synthesis.method",
        "never trained",
    ),
    (
        {
            "teacher": {"arguments": {"width": 8}, "classes": 5, "checkpoint": "{tmp}/fresh.safetensors"},
            "methods": ["finetune"],
            "data": {"name": "digits", "classes": [3, 4, 0, 1, 2]},
        },
        "data.classes",
        "no better than chance",
    ),
]


@pytest.mark.parametrize(("changes", "field", "says"), UNFIT, ids=lambda value: value if isinstance(value, str) else "")
def test_what_needs_network_and_data_is_found_before_ray_starts(changes, field: str, says: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = digits_network(classes=5, width=8)
    with torch.no_grad():
        network[-1].weight.zero_()
        network[-1].bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, -1.0]))
    save_network(network, tmp_path / "fresh.safetensors")
    path = written(tmp_path, **changes)
    path.write_text(path.read_text().replace("{tmp}", str(tmp_path)))
    config = parse(ContinualConfig, "", ["--config", str(path), "--run-dir", str(tmp_path / "run")]).config
    with pytest.raises(InputError) as caught:
        check_continual(config, config.teacher)
    assert caught.value.field == field and says in str(caught.value), str(caught.value)


def test_bad_input_ends_a_job_with_status_2(tmp_path: Path) -> None:
    path = written(tmp_path, steps=[{"name": "digits", "classes": [5, 11]}])
    done = call("continual", "--config", path, "--run-dir", tmp_path / "run")
    assert done.returncode == 2 and done.stderr.startswith("error: steps.0.classes = [5, 11]: must be "), done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_the_configurations_of_the_digits_differ_in_their_steps_alone() -> None:
    one, other = (
        yaml.safe_load((ROOT / "configs" / f"digits_continual{name}.yaml").read_text()) for name in ("", "_long")
    )
    same = ("seeds", "images_per_class", "epochs", "synthesis", "student")
    assert {name: one[name] for name in same} == {name: other[name] for name in same}
