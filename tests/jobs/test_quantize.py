"""Quantization: what a run leaves, kills, bad input, and what stands for its network afterwards."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import ray
import safetensors.torch
import torch
import yaml

from raydream.applications.quantizing import CHECKPOINT, Quantizing
from raydream.cli import parse
from raydream.config import DataConfig, QuantizeConfig, TeacherConfig
from raydream.config.conversion import validate
from raydream.data import ImageSet, load_data
from raydream.errors import InputError, MistakeError
from raydream.extras import EXTRAS
from raydream.jobs.checks.quantize import check_quantization
from raydream.networks import build_teacher
from raydream.runs.references import resolve
from raydream.store.shards import ShardStore
from raydream.teachers.loading import load_teacher
from tests.calls import call, start, wait_until
from tests.conftest import Job
from tests.tiny import ADDED_IMAGES, finished_images, some_batch


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that made 40 images."""
    return finished_images(tmp_path_factory.mktemp("images") / "run")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """Four bits by distillation, with a round of images."""
    path = tmp_path_factory.mktemp("config") / "tiny_quantize.yaml"
    settings = {
        "images": str(images),
        "seed": 7,
        "quantization": {
            "weights": 4,
            "activations": 4,
            "method": "distillation",
            "epochs": 3,
            "compare": "noise,real",
        },
        **ADDED_IMAGES,
        "student": {"batch_size": 20, "precision": "fp32", "learning_rate": 0.01},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, config: Path, job: Job) -> Path:
    """A finished run."""
    run_dir = tmp_path_factory.mktemp("quantized") / "run"
    done = job("quantize", "--config", config, "--run-dir", run_dir)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert "WARNING" not in done.stdout and "distill 1:" in done.stdout and "calibrated on noise" in done.stdout
    return run_dir


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run_dir / "student.safetensors")


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def answers(path: Path, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": x.numpy()})
    return torch.from_numpy(logits)


def test_a_run_leaves_what_it_says(quantized: Path) -> None:
    names = ("metrics.parquet", "teacher.safetensors", "network.json", "student.onnx", "teacher.onnx", "report.html")
    for name in names:
        assert (quantized / name).stat().st_size > 0, name
    assert not list(quantized.rglob(".*aside")) and not (quantized / "journal.jsonl").exists()
    summary = json.loads((quantized / "summary.json").read_text())
    test = load_data(DataConfig(), TeacherConfig()).test
    seen = (torch.from_numpy(test.images).float() / 255 - 0.3) / 0.35
    named = answers(quantized / "student.onnx", seen).argmax(1).numpy()
    assert summary["student_accuracy"] == np.mean(named == test.labels)
    assert [each["source"] for each in summary["sources"]] == ["these images", "noise", "real"]
    assert (summary["weight_bits"], summary["activation_bits"], summary["ranges"]) == (4, 4, "mse")
    assert summary["student_bytes"] == (quantized / "student.onnx").stat().st_size
    assert 0 < summary["packed_bytes"] < summary["student_bytes"] < summary["teacher_bytes"]
    assert summary["latency_ratio"] > 0 and set(summary["peak_memory_bytes"]["teacher"]) == {"1", "32"}
    divergences = [each["divergence"] for each in summary["layers"]]
    assert divergences == sorted(divergences, reverse=True) and len(divergences) > 3
    assert summary["images"] == 40 and summary["images_added"] == 40
    assert summary["distillation_steps"] == 3 * 2 + 2 * 4
    report = (quantized / "report.html").read_text()
    assert "Sensitivity by layer" in report and "Calibration images" in report


def test_a_run_equals_one_without_ray_to_the_bit(quantized: Path, images: Path) -> None:
    config = validate(QuantizeConfig, yaml.safe_load((quantized / "config.yaml").read_text()))
    pixels = np.concatenate([batch.images for batch in ImageSet(images).batches()])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = Quantizing(config, load_teacher(config.teacher), pixels).run()
    finally:
        torch.set_num_threads(threads)
    assert_same_weights(network.state_dict(), weights_of(quantized))


def test_a_run_that_is_done_quantizes_nothing_again(quantized: Path) -> None:
    before = (quantized / "student.onnx").stat().st_mtime_ns
    again = call("quantize", "--resume", quantized)
    assert again.returncode == 0 and "calibrate" not in again.stdout.split("┌")[0], again.stdout
    assert (quantized / "student.onnx").stat().st_mtime_ns == before


def test_a_run_stands_for_its_network(quantized: Path) -> None:
    described = resolve({"teacher": {"network": f"run:{quantized}"}})["teacher"]
    assert described["network"] == "quantized" and described["arguments"]["network"] == "digits"
    network = build_teacher(validate(TeacherConfig, described)).eval()
    network.load_state_dict(weights_of(quantized))
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        expected = network(x)
    found = answers(quantized / "student.onnx", x)
    assert float((found - expected).std() / expected.std()) < 0.05


def test_a_network_that_is_quantized_is_not_quantized_again(quantized: Path, config: Path, tmp_path: Path) -> None:
    given = ["--config", str(config), "--run-dir", str(tmp_path / "run"), "--teacher.network", f"run:{quantized}"]
    with pytest.raises(InputError, match="floating-point network"):
        check_quantization(parse(QuantizeConfig, "", given).config)


@pytest.mark.long
def test_eight_bits_make_a_file_and_a_program(config: Path, tmp_path: Path, job: Job) -> None:
    settings = yaml.safe_load(config.read_text()) | {"quantization": {"compare": "", "keep": "0"}, "additions": {}}
    (tmp_path / "eight.yaml").write_text(yaml.safe_dump(settings))
    done = job("quantize", "--config", tmp_path / "eight.yaml", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    x = torch.randn(4, 1, 8, 8)
    expected = answers(tmp_path / "run" / "teacher.onnx", x)
    program = torch.export.load(str(tmp_path / "run" / "student.pt2")).module()
    for found in (answers(tmp_path / "run" / "student.onnx", x), program(x).detach()):
        assert 0 < float((found - expected).std() / expected.std()) < 0.1
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["ranges"] == "min_max"


@pytest.mark.chaos
def test_a_run_makes_its_images_first_and_resumes_to_the_same_network(
    config: Path, library: Path, tmp_path: Path, job: Job
) -> None:
    settings = yaml.safe_load(config.read_text()) | {
        "images": "",
        "new_images": 40,
        "teacher": {"network": "digits", "arguments": {"width": 8}},
        "training": {"epochs": 4, "library": str(library)},
        "generators": {"cpus": 0.5},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(settings))
    run_dir = tmp_path / "run"
    process = start("quantize", "--config", tmp_path / "own.yaml", "--run-dir", run_dir)
    wait_until(lambda: (run_dir / "checkpoints" / CHECKPOINT).exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = job("quantize", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    summary, store = json.loads((run_dir / "summary.json").read_text()), ShardStore(run_dir / "images")
    assert summary["images"] == 40 and summary["images_of"] == "this run, by deep_inversion"
    first = [store.read(each) for each in store.committed() if not each.round]
    described = validate(QuantizeConfig, yaml.safe_load((run_dir / "config.yaml").read_text()))
    teacher = load_teacher(replace(described.teacher, checkpoint=str(run_dir / "teacher.safetensors")))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = Quantizing(described, teacher, np.concatenate([each.images for each in first])).run()
    finally:
        torch.set_num_threads(threads)
    assert_same_weights(network.state_dict(), weights_of(run_dir))


DIGITS = ["--teacher.network", "digits"]
BAD = [
    # (options, the field that the sentence names, a part of what it says)
    (["--images", ""], "images", "where no teacher is named"),
    ([*DIGITS, "--images", "", "--new_images", "19"], "student.batch_size", "at most 19, the images to be made"),
    (["--synthesis.method", "deepdream"], "synthesis.method", "with a competition"),
    (["--images", "no_such_run"], "images", "the folder of a run"),
    (["--images", "{tmp}/unfinished"], "images", "a run that is done; resume it"),
    (["--images", "{tmp}/wide"], "images", "there are images (3, 4, 6)"),
    (["--images", "{tmp}/other"], "teacher.classes", "7, as the images are of"),
    (["--quantization.weights", "1"], "quantization.weights", "greater than or equal to 2"),
    (["--quantization.activations", "9"], "quantization.activations", "less than or equal to 8"),
    (["--quantization.keep", "layer9"], "quantization.keep", "did you mean"),
    (["--quantization.ranges", "entropy"], "quantization.ranges", "unless all bits are 8"),
    (["--quantization.compare", "cats"], "quantization.compare", "noise, deepdream or real"),
    (["--quantization.method", "post_training"], "additions.rounds", "0 with post_training"),
    (["--student.network", "digits"], "student.network", "teacher; the student is the quantized network"),
    (["--student.precision", "bf16"], "student.precision", "fp32 or auto"),
    (["--student.batch_size", "41"], "student.batch_size", "at most 40"),
    (["--device", "cuda"], "student.gpus", "> 0 where device is cuda"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """Sets of images that cannot be used."""
    folder = tmp_path_factory.mktemp("broken")
    for name in ("unfinished", "wide", "other"):
        shutil.copytree(images, folder / name)
    (folder / "unfinished" / "summary.json").unlink()
    ShardStore(folder / "wide" / "images").write(some_batch())
    shutil.rmtree(folder / "other" / "images")
    ShardStore(folder / "other" / "images").write(some_batch(count=40, shape=(1, 8, 8)))
    return folder


@pytest.mark.parametrize(("options", "field", "says"), BAD, ids=lambda value: " ".join(value)[:40] if value else "")
def test_bad_input_is_found_before_ray_starts(
    options: list[str], field: str, says: str, config: Path, broken: Path, tmp_path: Path
) -> None:
    given = [option.format(tmp=broken) for option in options]
    with pytest.raises(InputError) as refused:
        check_quantization(
            parse(QuantizeConfig, "", ["--config", str(config), "--run-dir", str(tmp_path / "run"), *given]).config
        )
    assert refused.value.field == field and says in str(refused.value), str(refused.value)
    assert not (tmp_path / "run").exists() and not ray.is_initialized()


def test_a_missing_extra_is_one_sentence(config: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(EXTRAS, "quantize", ("no_such_module",))
    given = ["--config", str(config), "--run-dir", str(tmp_path / "run")]
    with pytest.raises(MistakeError, match=r"pip install 'raydream\[quantize\]'"):
        check_quantization(parse(QuantizeConfig, "", given).config)
