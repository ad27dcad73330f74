"""Bad input as a table: one sentence with field, value, allowed range and remedy, exit status 2, nothing harmed."""

import contextlib
import hashlib
import io
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydream.cli import Command, parse, run_job
from raydream.config import DistillConfig
from raydream.config.conversion import validate
from raydream.errors import InputError
from raydream.jobs.checks.distill import check_run
from raydream.networks.digits import digits_network
from raydream.runtime.placement import (
    Wanted,
    batches_that_fit,
    check_machine,
    generators_that_fit,
    missing,
    student_workers_that_fit,
)
from tests.calls import TINY, call, run
from tests.tiny import tiny_network

FIELDS = [
    # (options, the field that the sentence names, a part of what it says is allowed)
    (["--synthesis.method", "gan"], "synthesis.method", "'deep_inversion', 'adaptive', 'dafl', 'fast' or 'noisy'"),
    (["--synthesis.coefficients.tv", "-1"], "synthesis.coefficients.tv", "greater than or equal to 0"),
    (["--synthesis.coefficients.feature", "nan"], "synthesis.coefficients.feature", "finite"),
    (["--synthesis.learning_rate", "0"], "synthesis.learning_rate", "greater than 0"),
    (["--synthesis.betas", "[0.9, 1.0]"], "synthesis.betas.1", "less than 1"),
    (["--generators.count", "0"], "generators.count", "greater than or equal to 1"),
    (["--generators.count", "2", "--generators.min", "3"], "generators.min", "at most generators.count (2)"),
    (["--generators.count", "two"], "generators.count", "a valid integer"),
    (["--rounds.initial_batches", "0"], "rounds.initial_batches", "greater than or equal to 1"),
    (["--rounds.snapshot_steps", "0"], "rounds.snapshot_steps", "greater than or equal to 1"),
    (["--synthesis.chunk_size", "-3"], "synthesis.chunk_size", "greater than or equal to 1"),
    (["--synthesis.stages", "[{size: [4, 4]}]"], "synthesis.stages.size", "null in the last stage"),
    (["--synthesis.stages", "[{size: [1, 4]}, {}]"], "synthesis.stages.0.size.0", "greater than or equal to 2"),
    (["--synthesis.targets.rule", "weighted"], "synthesis.targets.weights", "given with"),
    (["--device", "tpu"], "device", "'auto', 'cpu', 'cuda' or 'mps'"),
    (["--buffer.samples_per_insert", "0"], "buffer.samples_per_insert", "greater than 0"),
    (["--student.workers", "3"], "student.workers", "a divisor of student.batch_size (20)"),
    (["--teacher.mean", "[0.1, 0.2]"], "teacher.mean", "1 numbers"),
    (["--experiment", "../up"], "experiment", "pattern"),
    (["--rounds.lockstep", "perhaps"], "rounds.lockstep", "a valid boolean"),
    (["--rounds.lockstep", "true", "--rounds.snapshot_steps", "5"], "rounds.snapshot_steps", "null in lockstep"),
    (["--rounds.count", "0", "--rounds.final_steps", "0"], "rounds.final_steps", ">= 1 where rounds.count is 0"),
    (["--data.name", "none"], "teacher.checkpoint", "the path of a checkpoint"),
    (["--teacher.checkpoint", "https://example.org/w.th"], "teacher.checkpoint", "a URL that ends in #sha256="),
    (["--config", "no_such.yaml"], "--config", "a file that exists, or the name of one that comes with raydream"),
    (["--synthesis.method", "noise", "--synthesis.coefficients.classification", "0"], "synthesis.coefficients", "> 0"),
    (["--resume", "no_such_run"], "--resume", "the folder of a run"),
    (["--resume=", "--seed", "1"], "--resume", "the folder of a run"),
]
BOUNDARIES = [
    ["--synthesis.coefficients.tv", "0"],
    ["--generators.count", "1"],
    ["--student.workers", "4"],
    ["--rounds.initial_batches", "1"],
    ["--rounds.count", "0", "--rounds.final_steps", "1"],
    ["--data.name", "none", "--teacher.checkpoint", __file__],
    ["--synthesis.betas", "[0, 0.999]"],
]


@pytest.mark.parametrize(
    ("options", "field", "allowed"), FIELDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_bad_field_is_named_with_what_is_allowed(
    options: list[str], field: str, allowed: str, tmp_path: Path
) -> None:
    status, error = _status_of(["--config", str(TINY), "--run-dir", str(tmp_path / "run"), *options])
    assert status == 2
    assert error.startswith(f"error: {field} = ") and allowed in error and error.count("\n") == 1, error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", BOUNDARIES, ids=" ".join)
def test_a_value_at_the_boundary_is_taken(options: list[str], tmp_path: Path) -> None:
    assert _status_of(["--config", str(TINY), "--run-dir", str(tmp_path / "run"), *options])[0] == 0


def test_a_list_in_a_file_is_told_of_as_it_stands_there(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("synthesis: {betas: [0.9, 1.0]}")
    given = ["--config", str(TINY), "--config", str(tmp_path / "mine.yaml"), "--run-dir", str(tmp_path / "run")]
    assert _status_of(given)[1].startswith("error: synthesis.betas.1 = 1.0: must be less than 1")


@pytest.mark.parametrize("content", [b"seed: \xff\xfe", b"seed: [", b"- 1", b"nothing_known: 1"])
def test_a_file_that_is_no_configuration_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    status, error = _status_of(["--config", str(tmp_path / "mine.yaml"), "--run-dir", str(tmp_path / "run")])
    assert status == 2 and error.startswith("error: ") and error.count("\n") == 1, error
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    status, error = _status_of(["--config", str(TINY), "--run-dir", str(tmp_path)])
    assert status == 2 and "new or empty" in error and "--resume" in error
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("path", ["/proc/run", "/dev/null", "/dev/null/run"])
def test_a_folder_that_cannot_be_written_is_refused(path: str) -> None:
    status, error = _status_of(["--config", str(TINY), "--run-dir", path])
    assert status == 2 and error.startswith("error: --run-dir = ")


def test_a_resumed_run_keeps_its_configuration(tmp_path: Path) -> None:
    command = parse(DistillConfig, "", ["--config", str(TINY), "--run-dir", str(tmp_path / "run")])
    folder = command.folder("distill")
    before = _fingerprint(folder.path)
    assert _status_of(["--resume", str(folder.path)])[0] == 0
    assert _status_of([f"--resume={folder.path}"])[0] == 0
    assert _status_of(["--config", str(TINY), "--resume", str(folder.path)])[0] == 0
    assert _status_of(["--resume", str(folder.path), "--seed", "0"])[0] == 0
    for given in (["--config", str(TINY), "--seed", "5"], ["--seed", "5"]):
        status, error = _status_of([*given, "--resume", str(folder.path)])
        assert status == 2 and error.startswith("error: seed = 5: must be 0, as in ")
    assert "--run-dir = " in _status_of(["--resume", str(folder.path), "--run-dir", str(tmp_path / "else")])[1]
    assert _fingerprint(folder.path) == before


def test_a_damaged_run_folder_is_refused(tmp_path: Path) -> None:
    folder = parse(DistillConfig, "", ["--config", str(TINY), "--run-dir", str(tmp_path / "run")]).folder("distill")
    (folder.path / "run.json").write_text('{"format": 99, "run": "x"}')
    assert "format 99" in _status_of(["--resume", str(folder.path)])[1]
    (folder.path / "run.json").write_text("{")
    assert _status_of(["--resume", str(folder.path)])[0] == 2


def no_batch_norm(classes: int = 10) -> torch.nn.Module:
    """A teacher that keeps no statistics."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))


def raising(**arguments: object) -> torch.nn.Module:
    """A factory that does not like what it is given."""
    raise KeyError("depth")


def two_heads() -> torch.nn.Module:
    """A network that answers with a tuple."""

    class TwoHeads(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    return TwoHeads()


NETWORKS = [
    (["--teacher.network", f"{__name__}:raising"], "teacher.arguments", "the factory says"),
    (
        ["--student.network", f"{__name__}:two_heads", "--student.arguments", "{{}}"],
        "student.network",
        "a probe gave a tuple",
    ),
    (["--teacher.checkpoint", "no_such.pt"], "teacher.checkpoint", "there is no such file"),
    (["--teacher.checkpoint", __file__], "teacher.checkpoint", "reading it safely failed"),
    (["--teacher.checkpoint", "{tmp}/wide.pt"], "teacher.checkpoint", "wrongly shaped"),
    (["--teacher.network", "resnet9000"], "teacher.network", "package.module:factory"),
    (["--teacher.network", "no.such:thing"], "teacher.network", "importing it failed"),
    (["--teacher.arguments", "{{depth: 3}}"], "teacher.arguments", "unexpected keyword argument"),
    (["--teacher.classes", "7", "--teacher.checkpoint", "{tmp}/teacher.pt"], "teacher.checkpoint", "wrongly shaped"),
    (
        ["--student.network", f"{__name__}:no_batch_norm", "--student.arguments", "{{classes: 4}}"],
        "student.network",
        "10 classes",
    ),
    (
        ["--teacher.network", f"{__name__}:no_batch_norm", "--teacher.arguments", "{{}}"],
        "synthesis.method",
        "batch normalization",
    ),
    (["--buffer.error_bound", "10"], "buffer.error_bound", "wait for each other forever"),
    (
        ["--buffer.samples_per_insert", "10", "--rounds.lockstep", "true"],
        "buffer.samples_per_insert",
        "44 steps a round",
    ),
    (
        ["--rounds.count", "1", "--buffer.samples_per_insert", "5", "--rounds.final_steps", "10"],
        "rounds.count",
        "50 distillation steps before the final ones",
    ),
]


@pytest.mark.parametrize(
    ("options", "field", "says"), NETWORKS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_needs_the_network_is_found_before_ray_starts(
    options: list[str], field: str, says: str, tmp_path: Path
) -> None:
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in tiny_network().state_dict().items()}},
        tmp_path / "teacher.pt",
    )
    torch.save(digits_network(width=16).state_dict(), tmp_path / "wide.pt")
    given = ["--config", str(TINY), "--run-dir", str(tmp_path / "run"), *(o.format(tmp=tmp_path) for o in options)]
    with pytest.raises(InputError) as caught:
        check_run(parse(DistillConfig, "", given).config)
    assert caught.value.field == field and says in str(caught.value), str(caught.value)


def test_valid_networks_and_limits_pass(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in tiny_network().state_dict().items()}},
        tmp_path / "teacher.pt",
    )
    for options in (
        ["--teacher.checkpoint", str(tmp_path / "teacher.pt")],
        [
            "--teacher.network",
            f"{__name__}:no_batch_norm",
            "--teacher.arguments",
            "{}",
            "--synthesis.method",
            "deepdream",
        ],
        ["--buffer.error_bound", "2100"],
    ):
        given = ["--config", str(TINY), "--run-dir", str(tmp_path / "run"), *options]
        assert check_run(parse(DistillConfig, "", given).config).schedule.steps_per_round == 100


def test_more_processes_than_the_machine_can_schedule_are_refused() -> None:
    config = parse(DistillConfig, "", ["--config", str(TINY), "--run-dir", "/tmp/never-made"]).config
    check_machine(config, [{"CPU": 1.2, "GPU": 0}])  # 2 x 0.4 + 0.4: exactly full
    check_machine(config, [{"CPU": 0.8, "GPU": 0}])  # one generator is enough to begin
    with pytest.raises(InputError, match=r"generators.cpus = 0.4: must be at most 0.3; .* reserve 0.8 CPUS"):
        check_machine(config, [{"CPU": 0.7, "GPU": 0}])
    both = replace(config, generators=replace(config.generators, min=2))
    with pytest.raises(InputError, match=r"generators.cpus = 0.4: must be at most 0.35; .* reserve 1.2 CPUS"):
        check_machine(both, [{"CPU": 1.1, "GPU": 0}])


@pytest.mark.parametrize(
    ("cpus", "gpus", "fit"),
    [(0.3, 1, 0), (0.8, 1, 1), (1.2, 1, 2), (3.6, 1.2, 8), (99, 1.2, 8), (99, 0.5, 3), (99, 0.1, 0), (99, 0.09, 0)],
)
def test_as_many_generators_are_asked_for_as_fit_beside_the_student(cpus: float, gpus: float, fit: int) -> None:
    config = DistillConfig(generators={"count": 8, "cpus": 0.4, "gpus": 0.125}, student={"cpus": 0.4, "gpus": 0.1})
    assert generators_that_fit(config, [{"CPU": cpus, "GPU": gpus}]) == fit
    free = replace(config, generators=replace(config.generators, gpus=0.0))
    assert generators_that_fit(free, [{"CPU": cpus, "GPU": 0.1}]) == min(8, max(0, int((cpus - 0.4) / 0.4 + 1e-9)))
    assert generators_that_fit(free, [{"CPU": cpus, "GPU": 0.0}]) == 0  # the student itself has no room


SPOT, STEADY, HEAD = {"CPU": 4.0, "GPU": 1.0, "spot": 1.0}, {"CPU": 8.0, "GPU": 2.0, "steady": 1.0}, {"CPU": 0.0}


@pytest.mark.parametrize(
    ("nodes", "generators", "students"),
    [
        ([HEAD], 0, 0),
        ([HEAD, SPOT], 2, 0),
        ([HEAD, STEADY], 0, 2),
        ([HEAD, SPOT, SPOT, STEADY], 4, 2),
        ([HEAD, *[SPOT] * 9, STEADY, STEADY], 6, 4),
    ],
)
def test_roles_with_nodes_of_their_own_take_nothing_from_each_other(nodes, generators: int, students: int) -> None:
    config = DistillConfig(
        generators={"count": 6, "gpus": 0.5, "node_resource": "spot"},
        student={"workers": 4, "min_workers": 1, "gpus": 1, "batch_size": 8, "node_resource": "steady"},
    )
    assert generators_that_fit(config, nodes) == generators
    assert student_workers_that_fit(config, nodes) == students
    assert missing(config, nodes) == {
        "generators": Wanted({"CPU": 0.5, "GPU": 0.5, "spot": 0.001}, 6 - generators),
        "student": Wanted({"CPU": 0.5, "GPU": 1.0, "steady": 0.001}, 4 - students),
    }


def test_roles_without_room_on_nodes_of_their_own_are_refused() -> None:
    config = DistillConfig(generators={"gpus": 1, "node_resource": "spot"}, student={"gpus": 1, "node_resource": "on"})
    with pytest.raises(InputError, match=r"student.cpus = 0.5: must be at most 0; .* on nodes that offer on: "):
        check_machine(config, [SPOT, STEADY])
    check_machine(config, [SPOT, STEADY | {"on": 1.0}])
    with pytest.raises(InputError, match=r"generators.cpus = 0.5: must be at most 0; .* on nodes that offer spot: "):
        check_machine(config, [STEADY | {"on": 1.0}])


@pytest.mark.parametrize(
    ("workers", "fewest", "cpus", "gpus", "students", "generators"),
    [
        (4, 1, 99, 99, 4, 3),
        (4, 1, 3.0, 99, 4, 2),  # generators beyond the fewest make room for the student
        (4, 1, 2.4, 99, 2, 3),  # 3 workers would leave 0.6 CPUs: room for 1; and do not split 8 images
        (4, 1, 1.9, 99, 2, 2),
        (4, 1, 1.3, 99, 1, 2),
        (4, 1, 0.9, 99, 1, 1),  # not room for 2 generators beside any student: the fewest workers
        (4, 3, 99, 99, 4, 3),
        (4, 3, 2.6, 99, 4, 0),  # 3 do not split 8 images
        (4, 3, 2.3, 99, 0, 0),
        (4, None, 2.3, 99, 0, 0),
        (4, None, 2.4, 99, 4, 0),
        (4, 1, 99, 2.0, 2, 3),
        (4, 1, 99, 0.9, 0, 0),
    ],
)
def test_students_of_several_workers_take_what_the_fewest_generators_leave(
    workers: int, fewest: int | None, cpus: float, gpus: float, students: int, generators: int
) -> None:
    student = {"workers": workers, "min_workers": fewest, "batch_size": 8, "cpus": 0.6, "gpus": 1}
    config = DistillConfig(student=student, generators={"count": 3, "min": 2, "cpus": 0.3})
    assert student_workers_that_fit(config, [{"CPU": cpus, "GPU": gpus}]) == students
    assert generators_that_fit(config, [{"CPU": cpus, "GPU": gpus}]) == generators


@pytest.mark.parametrize(("memory_mb", "fit"), [(None, 4096), (1.0, 8), (0.99, 7), (0.2, 1), (0.01, 1), (100.0, 800)])
def test_so_many_batches_are_kept_in_memory(memory_mb: float | None, fit: int) -> None:
    config = DistillConfig(
        teacher={"input_shape": (1, 16, 32)}, synthesis={"batch_size": 256}, buffer={"memory_mb": memory_mb}
    )
    assert batches_that_fit(config, 2**30) == fit


def test_a_wrong_field_is_found_before_torch_and_ray_are_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; from raydream.cli import run_job; from raydream.config import DistillConfig; "
        "status = run_job(DistillConfig, '', print); print(status, {'torch', 'ray'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, "--config", str(TINY), "--generators.count", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "2 set()\n", done.stdout


def test_a_job_answers_bad_input_in_one_sentence(tmp_path: Path) -> None:
    done = run("distill", "--config", TINY, "--generators.count", "0", "--run-dir", tmp_path / "run")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "generators.count = 0" in done.stderr
    done = call("distill", "--config", TINY, "--generators.cpus", "99", "--run-dir", tmp_path / "run")
    assert done.returncode == 2 and "reserve" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def _status_of(arguments: Sequence[str]) -> tuple[int, str]:
    """Exit status and error text of a job that only reads its command line."""

    def job(command: Command[DistillConfig]) -> None:
        assert command.config is not None

    error = io.StringIO()
    with contextlib.redirect_stderr(error), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["job.py", *arguments])
        patch.setattr(sys, "path", list(sys.path))
        status = run_job(DistillConfig, "a job", job)
    return status, error.getvalue()


def _fingerprint(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("data", "teacher", "field", "says"),
    [
        ({"name": "files", "test": "/none.npz", "validation_of": "test"}, {}, "data.test", "nothing is there"),
        ({"name": "torchvision:MNIST", "folder": "/none"}, {}, "data.folder", "in which torchvision finds MNIST"),
        ({}, {"input_shape": (1, 9, 9)}, "data.name", "a data set of images (1, 9, 9), as teacher.input_shape says"),
        ({}, {"classes": 7}, "data.name", "labeled by classes from 0 to 6, as teacher.classes says"),
    ],
)
def test_real_data_that_cannot_be_used_are_refused(data: dict, teacher: dict, field: str, says: str) -> None:
    config = validate(DistillConfig, {"data": data, "teacher": teacher, "student": {"batch_size": 8}})
    with pytest.raises(InputError) as refused:
        check_run(config)
    assert refused.value.field == field and says in str(refused.value), str(refused.value)
