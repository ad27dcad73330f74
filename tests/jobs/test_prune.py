"""Pruning: what a run leaves, kills, bad input, and what stands for its network afterwards."""

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

from raydream.applications.pruning import CHECKPOINT, Pruning
from raydream.cli import parse
from raydream.config import DataConfig, PruneConfig, TeacherConfig
from raydream.config.conversion import validate
from raydream.data import ImageSet, load_data
from raydream.errors import InputError
from raydream.evaluation.accuracy import accuracy
from raydream.evaluation.latency import filters_of
from raydream.jobs.checks.prune import check_pruning
from raydream.jobs.prune import save
from raydream.networks import build_teacher
from raydream.pruning import load_pruned
from raydream.pruning.streams import find_streams, remove
from raydream.runs.journal import Journal
from raydream.runs.references import resolve
from raydream.store.shards import ShardStore
from raydream.teachers.loading import load_teacher
from tests.calls import call, start, wait_until
from tests.chaos.faults import kill
from tests.conftest import Job
from tests.tiny import ADDED_IMAGES, finished_images, some_batch


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that made 40 images."""
    return finished_images(tmp_path_factory.mktemp("images") / "run")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny_prune.yaml"
    settings = {
        "images": str(images),
        "seed": 7,
        "pruning": {"ratio": 0.4, "steps": 2, "batches": 2, "between_epochs": 2, "epochs": 4},
        **ADDED_IMAGES,
        "student": {"batch_size": 20, "precision": "fp32"},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory, config: Path, job: Job) -> Path:
    """A finished run."""
    run_dir = tmp_path_factory.mktemp("pruned") / "run"
    done = job("prune", "--config", config, "--run-dir", run_dir)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert "WARNING" not in done.stdout and "remove 2:" in done.stdout and "real test images" in done.stdout
    return run_dir


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run_dir / "student.safetensors")


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_run_leaves_what_it_says(pruned: Path) -> None:
    names = ("metrics.parquet", "teacher.safetensors", "network.json", "student.onnx", "student.pt2", "report.html")
    for name in names:
        assert (pruned / name).stat().st_size > 0, name
    assert not list(pruned.rglob(".*aside")) and not (pruned / "journal.jsonl").exists()
    summary = json.loads((pruned / "summary.json").read_text())
    network, test = load_pruned(str(pruned)), load_data(DataConfig(), TeacherConfig()).test
    assert summary["filters_ratio"] <= 0.6 and summary["filters_ratio"] > 0.4
    assert summary["pruned_filters"] == filters_of(network.network)
    assert 0 < summary["flops_ratio"] < 1 and 0 < summary["parameters_ratio"] < 1 and summary["latency_ratio"] > 0
    assert summary["pruned_accuracy"] == accuracy(network.network, network.normalization, test.images, test.labels)
    assert summary["images"] == 40 and summary["images_added"] == 40
    assert summary["distillation_steps"] == 2 * 2 + 4 * 2 + 2 * 4
    assert [pair["pruned"]["batch_size"] for pair in summary["latencies"]] == [1, 32]
    assert "pruned" in (pruned / "report.html").read_text()


def test_a_run_equals_one_without_ray_to_the_bit(pruned: Path, images: Path) -> None:
    config = validate(PruneConfig, yaml.safe_load((pruned / "config.yaml").read_text()))
    pixels = np.concatenate([batch.images for batch in ImageSet(images).batches()])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = Pruning(config, load_teacher(config.teacher), pixels).run()
    finally:
        torch.set_num_threads(threads)
    assert_same_weights(network.state_dict(), weights_of(pruned))


@pytest.mark.chaos
def test_a_run_makes_its_images_first_and_goes_on_to_the_same_network(
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
    process = start("prune", "--config", tmp_path / "own.yaml", "--run-dir", run_dir)
    wait_until(lambda: (run_dir / "checkpoints" / CHECKPOINT).exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    store = ShardStore(run_dir / "images")
    before = {path: path.stat().st_mtime_ns for path in (run_dir / "images").glob("r0000*.parquet")}
    done = job("prune", "--resume", run_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["images"] == 40 and summary["images_of"] == "this run, by deep_inversion"
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) == 2
    first, added = ([store.read(each) for each in store.committed() if bool(each.round) == late] for late in (0, 1))
    assert {each.provenance.method for each in first} == {"deep_inversion"} and len(added) == 2
    described = validate(PruneConfig, yaml.safe_load((run_dir / "config.yaml").read_text()))
    teacher = load_teacher(replace(described.teacher, checkpoint=str(run_dir / "teacher.safetensors")))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = Pruning(described, teacher, np.concatenate([each.images for each in first])).run()
    finally:
        torch.set_num_threads(threads)
    assert_same_weights(network.state_dict(), weights_of(run_dir))


@pytest.mark.chaos
def test_a_killed_worker_costs_an_epoch_at_most(config: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start("prune", "--config", config, "--pruning.epochs", "100", "--run-dir", run_dir)
    wait_until(lambda: (run_dir / "checkpoints" / CHECKPOINT).exists(), process)
    wait_until(lambda: bool(kill(process.pid, "ray::_prune")), process)
    out, error = process.communicate(timeout=250)
    assert process.returncode == 0, out + error


def test_a_run_that_is_done_removes_nothing_again(pruned: Path) -> None:
    before = (pruned / "student.safetensors").stat().st_mtime_ns
    again = call("prune", "--resume", pruned)
    assert again.returncode == 0 and "remove" not in again.stdout.split("┌")[0], again.stdout
    assert (pruned / "student.safetensors").stat().st_mtime_ns == before


def test_a_run_stands_for_its_network(pruned: Path, tmp_path: Path, job: Job) -> None:
    described = resolve({"teacher": {"network": f"run:{pruned}"}})["teacher"]
    assert described["network"] == "pruned" and described["arguments"]["of"] == "digits"
    assert described["checkpoint"] == str(pruned / "student.safetensors")
    network = build_teacher(validate(TeacherConfig, described))
    assert_same_weights({name: torch.zeros_like(value) for name, value in network.state_dict().items()}, {
        name: torch.zeros_like(value) for name, value in weights_of(pruned).items()
    })  # fmt: skip
    done = job("evaluate", "--images", pruned, "--verifiers", f"run:{pruned}", "--run-dir", tmp_path / "seen")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_exported_answers_alike(pruned: Path) -> None:
    teacher = load_pruned(str(pruned))
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        expected = teacher.network(x)
        torch.testing.assert_close(torch.export.load(str(pruned / "student.pt2")).module()(x), expected)
    session = onnxruntime.InferenceSession(str(pruned / "student.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_what_is_saved_is_loaded_by_one_call(config: Path, tmp_path: Path) -> None:
    command = parse(PruneConfig, "", ["--config", str(config), "--run-dir", str(tmp_path / "run")])
    teacher, notes = load_teacher(command.config.teacher), Journal(tmp_path / "notes", print)
    folder = command.folder("prune")
    streams = find_streams(teacher.network, (1, 8, 8))
    network = remove(teacher.network, streams, {stream.name: [0, 1] for stream in streams})
    save(command.config, network, folder, notes)
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_pruned(str(tmp_path / "run")).network(x), network(x))
    assert not (tmp_path / "notes").exists() and not ray.is_initialized()


DIGITS = ["--teacher.network", "digits"]
BAD = [
    # (options, the field that the sentence names, a part of what it says)
    (["--images", ""], "images", "where no teacher is named"),
    ([*DIGITS, "--images", "", "--share", "0.5"], "share", "1 where no images are named"),
    ([*DIGITS, "--images", "", "--new_images", "19"], "student.batch_size", "at most 19, the images to be made"),
    ([*DIGITS, "--data.name", "none"], "teacher.checkpoint", "the path of a checkpoint"),
    (["--synthesis.method", "deepdream"], "synthesis.method", "adaptive, fast or noisy, with a competition"),
    (["--synthesis.start", "images"], "synthesis.start", "noise where additions.rounds > 0"),
    (["--images", "no_such_run"], "images", "the folder of a run"),
    (["--images", "{tmp}/unfinished"], "images", "a run that is done; resume it"),
    (["--images", "{tmp}/wide"], "images", "there are images (3, 4, 6)"),
    (["--images", "{tmp}/other"], "teacher.classes", "7, as the images are of"),
    (["--pruning.ratio", "0"], "pruning.ratio", "greater than 0"),
    (["--pruning.ratio", "1"], "pruning.ratio", "less than 1"),
    (
        ["--pruning.ratio", "0.9"],
        "pruning.ratio",
        "at most 0.846 for digits; more would leave a layer with less than 2",
    ),
    (["--pruning.ratio", "0.63", "--pruning.block", "5"], "pruning.ratio", "at most 0.625"),
    (["--pruning.least", "14", "--pruning.of", "flops"], "pruning.ratio", "at most"),
    (["--pruning.criterion", "l1"], "pruning.criterion", "'taylor', 'magnitude' or 'random'"),
    (["--pruning.of", "seconds"], "pruning.of", "'filters' or 'flops'"),
    (["--pruning.steps", "0"], "pruning.steps", "greater than or equal to 1"),
    (["--pruning.eta", "-1"], "pruning.eta", "greater than or equal to 0"),
    (["--student.network", "digits"], "student.network", "teacher; the student is what is left"),
    (["--student.workers", "2"], "student.workers", "1; one process"),
    (["--student.batch_size", "41"], "student.batch_size", "at most 40"),
    (["--device", "cuda"], "student.gpus", "> 0 where device is cuda"),
    (["--synthesis.targets", "{{rule: listed, classes: [10]}}"], "synthesis.targets.classes", "0 to 9"),
    (["--teacher.network", "run:no_such_run"], "teacher.network", "the folder of a run"),
    (["--data.name", "mnist"], "data.name", "digits, files"),
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
        check_pruning(
            parse(PruneConfig, "", ["--config", str(config), "--run-dir", str(tmp_path / "run"), *given]).config
        )
    assert refused.value.field == field and says in str(refused.value), str(refused.value)
    assert not (tmp_path / "run").exists() and not ray.is_initialized()


def test_values_at_the_boundary_are_taken(config: Path, tmp_path: Path) -> None:
    given = ["--config", str(config), "--run-dir", str(tmp_path / "run"), "--pruning.ratio", "0.846"]
    assert len(check_pruning(parse(PruneConfig, "", [*given, "--student.batch_size", "40"]).config).images) == 40


def linear_network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


class Halving(torch.nn.Module):
    """What it computes depends on how many channels it gets, which nobody can see in its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(1, 6, 3), torch.nn.Conv2d(6, 6, 3)
        self.last = torch.nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(self.second(x / x.shape[1]).mean((2, 3)))


class Fixed(torch.nn.Module):
    """An activation that keeps count of its channels, so that none can go."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope, self.channels = torch.nn.Parameter(torch.ones(channels)), channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.slope.view(1, self.channels, 1, 1)


def fixed_network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), Fixed(6), torch.nn.Flatten(), torch.nn.Linear(216, 10))


def normed_network() -> torch.nn.Module:
    layers = [torch.nn.Conv2d(1, 6, 3), torch.nn.GroupNorm(2, 6), torch.nn.Flatten(), torch.nn.Linear(216, 10)]
    return torch.nn.Sequential(*layers)


def much_normed_network() -> torch.nn.Module:
    norms = [torch.nn.GroupNorm(2, 6) for _ in range(4)]
    return torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), *norms, torch.nn.Flatten(), torch.nn.Linear(216, 10))


def half_normed_network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3), torch.nn.Conv2d(6, 1, 1), torch.nn.Upsample(8), normed_network()
    )


REFUSED = [
    (linear_network, 0.5, "no convolutions"),
    (Halving, 0.5, "answers differently"),
    (fixed_network, 0.5, r"following them failed: .*shape"),
    (normed_network, 0.5, r"no layer can lose channels: 0 runs through 1, a GroupNorm.$"),
    (much_normed_network, 0.5, r": 0 runs through [1-4], a GroupNorm, [1-4], a GroupNorm, and 2 more layers.$"),
    (half_normed_network, 0.9, r"at most 0\.\d+ .*left out: 3\.0 runs through 3\.1, a GroupNorm.$"),
]


@pytest.mark.parametrize(("factory", "ratio", "says"), REFUSED)
def test_networks_that_cannot_be_pruned_are_told(
    factory, ratio: float, says: str, config: Path, tmp_path: Path
) -> None:
    safetensors.torch.save_file(factory().state_dict(), tmp_path / "weights.safetensors")
    given = parse(PruneConfig, "", ["--config", str(config), "--run-dir", str(tmp_path / "run")]).config
    name = f"tests.jobs.test_prune:{factory.__name__}"
    teacher = replace(given.teacher, network=name, arguments={}, checkpoint=str(tmp_path / "weights.safetensors"))
    pruning, additions = replace(given.pruning, ratio=ratio), replace(given.additions, rounds=0)
    with pytest.raises(InputError, match=says):
        check_pruning(replace(given, teacher=teacher, pruning=pruning, additions=additions))


def test_a_network_some_of_whose_layers_keep_their_channels_is_pruned_with_a_note(config: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file(half_normed_network().state_dict(), tmp_path / "weights.safetensors")
    given = parse(PruneConfig, "", ["--config", str(config), "--run-dir", str(tmp_path / "run")]).config
    assert check_pruning(given).note == ""
    name, weights = "tests.jobs.test_prune:half_normed_network", str(tmp_path / "weights.safetensors")
    teacher = replace(given.teacher, network=name, arguments={}, checkpoint=weights)
    pruning, additions = replace(given.pruning, ratio=0.2), replace(given.additions, rounds=0)
    checked = check_pruning(replace(given, teacher=teacher, pruning=pruning, additions=additions))
    assert checked.note == "these layers keep all their channels: 3.0 runs through 3.1, a GroupNorm"
