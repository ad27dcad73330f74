"""What a process does with a GPU, where there is none.

No test here has met a GPU. Three ways stand in for one: `Recorded` answers for a few functions of `torch.cuda`, fake
tensors follow devices through forward passes, and a private Ray has two declared GPUs (`runtime/test_gpus.py`). The
check's own steps have a stand-in of theirs, `Cuda` in `device_check/test_gpu_steps.py`. What only a GPU can show
(kernels, memory, equal bits) is left to the tests that are skipped without one.
"""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from raydream.compute import arithmetic, autocast, driver_version, repeats_bits, use_device
from raydream.config import (
    METHODS,
    DistillConfig,
    GeneratorsConfig,
    SynthesisConfig,
    SynthesizeConfig,
    TeacherConfig,
    TransferConfig,
    ViewConfig,
)
from raydream.jobs import distill
from raydream.losses.divergences import kl_divergence
from raydream.networks import build_teacher
from raydream.runtime import generator, learner
from raydream.runtime.gpus import free_shares, idle_gpus, share_to_measure_on, with_generators
from raydream.runtime.process_group import backend_for
from raydream.runtime.session import device_of_driver
from raydream.store.folders import LocalFolder
from raydream.store.records import BatchId, Order
from raydream.students.learning import update_average
from raydream.students.view import StudentView
from raydream.synthesis.batch import BatchMaker
from raydream.synthesis.engine import Engine
from raydream.synthesis.generator_network import GeneratorNetwork
from raydream.synthesis.view import View
from raydream.teachers.normalization import Normalization
from raydream.teachers.teacher import Teacher
from tests.calls import call

ROOT = Path(__file__).parents[1]
CPU, GPU_IN_USE = torch.device("cpu"), torch.device("cuda", 1)


class Recorded:
    """Answers for `torch.cuda` in a process that sees two GPUs and whose current one is the second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fractions: list[tuple[float, torch.device]] = []
        answers = {
            "is_available": lambda: True,
            "device_count": lambda: 2,
            "current_device": lambda: 1,
            "get_device_name": lambda device: f"GPU of {device}",
            "is_bf16_supported": lambda including_emulation: True,
            "set_per_process_memory_fraction": lambda share, device: self.fractions.append((share, device)),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92600)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [each.allow_tf32 for each in backends]
    yield Recorded(monkeypatch)
    for each, allowed in zip(backends, before, strict=True):
        each.allow_tf32 = allowed  # type: ignore[attr-defined]


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_the_device_has_the_index_that_prepare_model_asks_for(cuda, device):
    # Ray Train has made it current by then: the workers of a node see all GPUs of the node's workers.
    assert use_device(device, 1.0, 1.0) == GPU_IN_USE


def test_fp32_is_not_tf32(cuda):
    torch.backends.cuda.matmul.allow_tf32 = True
    use_device("auto", 1.0, 1.0)
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("gpus", "limited"), [(0.25, [0.25]), (0.9, [0.9]), (1.0, []), (4.0, [])])
def test_a_process_with_a_fraction_of_a_gpu_takes_no_more_of_its_memory(cuda, gpus, limited):
    use_device("auto", 1.0, gpus)
    assert cuda.fractions == [(share, GPU_IN_USE) for share in limited]


def test_a_process_that_reserves_no_gpu_leaves_them_alone(cuda):
    assert use_device("auto", 1.0, 0.0).type != "cuda"
    assert cuda.fractions == []


SWITCHES = """
import os
import torch
import torch._inductor.config
from raydream.compute import compute_deterministically
def told():
    return [
        torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG") == ":4096:8",
        torch._inductor.config.deterministic,
        not torch.utils.deterministic.fill_uninitialized_memory,
    ]
torch.backends.cudnn.benchmark = True
compute_deterministically(torch.device("cpu"))
assert not any(told()), told()
compute_deterministically(torch.device("cuda", 0))
assert all(told()), told()
"""


def test_one_call_sets_all_switches_of_determinism_and_only_for_a_gpu():
    done = subprocess.run([sys.executable, "-c", SWITCHES], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_machine_without_a_driver_has_no_version_of_it(tmp_path):
    assert driver_version(tmp_path / "none") == ""
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun\nGCC version:\n")
    assert driver_version(tmp_path / "version") == "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun"


def test_all_that_decides_the_bits_on_a_gpu_is_told(cuda, monkeypatch):
    gpu = use_device("auto", 1.0, 1.0)
    plain = arithmetic(gpu)
    assert plain["device"] == "cuda" and plain["processor"] == "GPU of cuda:1"
    assert plain["tf32"] == [False, False] and plain["deterministic"] is False and plain["cudnn"]
    changes = {
        "torch.cuda.get_device_name": lambda device: "another",
        "raydream.compute.driver_version": lambda: "another",
        "torch.backends.cudnn.version": lambda: 1,
        "torch.are_deterministic_algorithms_enabled": lambda: True,
    }
    for name, answer in changes.items():
        with monkeypatch.context() as patch:
            patch.setattr(name, answer)
            assert arithmetic(gpu) != plain, name
    torch.backends.cudnn.allow_tf32 = True
    assert arithmetic(gpu) != plain


@pytest.mark.parametrize("lockstep", [False, True])
def test_every_process_of_lockstep_computes_deterministically(cuda, monkeypatch, lockstep, tmp_path):
    told: list[torch.device] = []
    for module in (generator, learner, distill):
        monkeypatch.setattr(module, "compute_deterministically", told.append)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = DistillConfig(
        rounds={"lockstep": lockstep, "final_steps": 1}, generators={"gpus": 0.5}, student={"gpus": 0.5}
    )
    learner.device_of(config)
    place = LocalFolder(tmp_path)
    plan = generator.GeneratorPlan(
        "run", "auto", config.teacher, config.synthesis, None, config.generators, place, place, lockstep=lockstep
    )
    generator.Generator(0, plan)
    assert distill.device_to_compute_on(config) == GPU_IN_USE  # the driver's
    assert told == (3 * [GPU_IN_USE] if lockstep else [])
    assert learner.device_of(TransferConfig(images="x", student={"gpus": 1.0})) == GPU_IN_USE


GPU = torch.device("cuda", 0)
SHAPE = (3, 12, 12)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors have shapes and devices, and no values; what mixes two devices is an error, as it is on a GPU."""
    # A copy of a network would bring along a copy of the mode, and tensors of two modes do not mix.
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, memo: mode, raising=False)
    monkeypatch.setattr(nn.Module, "to", lambda network, device: network)  # it cannot, and they are there already
    monkeypatch.setattr(Normalization, "canvas", lambda here: here)  # it is made of numbers that these do not have
    with FakeTensorMode():
        yield


def made(build: Callable[[], nn.Module]) -> nn.Module:
    """A network on the GPU."""
    with GPU:
        return build().eval()


DESCRIBED = TeacherConfig(
    network="cifar_resnet20", input_shape=SHAPE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2), classes=10
)


def network_on_gpu() -> nn.Module:
    return made(lambda: build_teacher(DESCRIBED))


def teacher_on_gpu() -> Teacher:
    return Teacher(network_on_gpu(), made(lambda: Normalization(DESCRIBED.mean, DESCRIBED.std)), DESCRIBED, "")


def test_fake_tensors_find_what_lies_on_two_devices(fake):
    with pytest.raises(RuntimeError, match="two devices"):
        torch.zeros(2, device=GPU) + torch.zeros(2)


def test_pixels_become_what_the_network_sees_and_come_back_on_its_device(fake):
    teacher = teacher_on_gpu()
    pixels = torch.zeros(4, *SHAPE, dtype=torch.uint8)  # as they come from the object store
    assert teacher.logits(pixels).device == teacher.normalization.quantize(teacher.normalization(pixels)).device == GPU


EVERYTHING = ViewConfig(shift=1, flip=True, zoom=0.1, rotation=5.0, brightness=0.1, contrast=0.1, cutout=2)
"""but MixUp, whose weight is a number that fake tensors do not have"""


def test_a_distillation_step_stays_on_its_device(fake):
    teacher, student = teacher_on_gpu(), network_on_gpu().train()
    view = StudentView(EVERYTHING, teacher.normalization)
    seen = view(torch.zeros(4, *SHAPE, dtype=torch.uint8), torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        with torch.no_grad(), autocast(dtype, GPU):
            loss = kl_divergence(teacher.network(seen).float(), student(seen).float(), 3.0)
        assert loss.device == GPU
    update_average(copy.deepcopy(student), student, 0.9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_the_objective_of_each_method_stays_on_its_device(fake, method, chunk_size):
    teacher, config = teacher_on_gpu(), SynthesisConfig(method=method, compile="off", chunk_size=chunk_size)
    engine = Engine(teacher, config, config.terms, 1)
    gradient, targets = engine.gradient(network_on_gpu()), torch.zeros(4, dtype=torch.long, device=GPU)
    images = View(1, -1, 1)(torch.zeros(4, *SHAPE, device=GPU))
    with torch.no_grad():
        total, _, _ = gradient._all_at_once(images, targets)
        assert total.device == GPU
        if chunk_size is not None and gradient.layers:
            assert all(value.device == GPU for pair in gradient._statistics(images, chunk_size) for value in pair)
        assert engine.logits(torch.zeros(4, *SHAPE, dtype=torch.uint8)).device == GPU


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_batch_has_a_recipe_on_a_gpu_only_where_its_bits_can_be_made_again(fake, monkeypatch, deterministic):
    teacher = teacher_on_gpu()
    Recorded(monkeypatch)  # not before, as fake tensors would look for the GPU that it reports
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    maker = BatchMaker("run", teacher, SynthesisConfig(method="deep_inversion", compile="off"))
    recipe = maker.recipe(Order(BatchId(0, 0), np.arange(4), 0), None, None)
    assert len(recipe) == (16 if deterministic else 0)


@pytest.mark.parametrize(("device", "repeated"), [("cpu", True), ("cuda", False), ("mps", False)])
def test_bits_are_repeated_on_cpus_and_on_others_only_where_torch_promises_it(monkeypatch, device, repeated):
    assert repeats_bits(torch.device(device)) == repeated
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert repeats_bits(torch.device(device)) == (device != "mps")


def test_a_generator_network_makes_images_on_its_device(fake):
    teacher = teacher_on_gpu()
    network = made(lambda: GeneratorNetwork(SynthesisConfig().generator, teacher))
    assert network(torch.zeros(4, 256, device=GPU)).device == GPU


@pytest.mark.parametrize(
    ("gpus", "processes", "free"),
    [
        (0, [0.5], []),
        (1, [], [1.0]),
        (1, [0.45, 0.45], [0.1]),
        (2, [1.0, 0.5], [0.0, 0.5]),
        (2, [0.5, 0.5], [0.0, 1.0]),  # where a fraction fits most tightly
        (2, [0.6, 0.6, 0.4], [0.0, 0.4]),
        (1, [0.6, 0.6], [0.4]),  # the second waits
        (4, [2.0, 1.0], [0.0, 0.0, 0.0, 1.0]),
        (1, [2.0], [1.0]),
    ],
)
def test_what_processes_leave_of_each_gpu(gpus, processes, free):
    assert sorted(free_shares(gpus, processes)) == pytest.approx(sorted(free))


@pytest.mark.parametrize(
    ("gpus", "cpus", "generators", "student", "count"),
    [
        (1, 8, {"gpus": 0.45}, {"gpus": 0.45}, 1),
        (4, 8, {"gpus": 0.45}, {"gpus": 0.45}, 7),
        (4, 2, {"gpus": 0.45}, {"gpus": 0.45}, 3),  # 0.5 CPUs each, and the student
        (4, 8, {"gpus": 1}, {"gpus": 1}, 3),
        (4, 8, {"gpus": 1}, {"gpus": 0.5}, 3),
        (4, 8, {"gpus": 2}, {"gpus": 1}, 1),
        (4, 8, {"gpus": 1}, {"gpus": 1, "workers": 2}, 2),
        (4, 8, {"gpus": 1, "min": 4}, {"gpus": 1}, 4),  # for which there is no room, as the check says
        (0, 8, {"gpus": 1}, {"gpus": 1}, 1),
        (4, 8, {"gpus": 0}, {"gpus": 1}, 2),
        (4, 8, {"gpus": 1, "count": 2}, {"gpus": 1}, 2),
    ],
)
def test_auto_is_as_many_generators_as_the_gpus_have_room_for(gpus, cpus, generators, student, count):
    config = DistillConfig(generators=generators, student=student)
    assert with_generators(config, config, [{"CPU": cpus, "GPU": gpus}]).generators.number == count


def test_auto_is_two_generators_on_cpus_and_no_more_than_chains_on_gpus():
    assert GeneratorsConfig().count == "auto" and GeneratorsConfig().number == 2
    assert GeneratorsConfig(min=3).number == 3 and GeneratorsConfig(count=5).number == 5
    alone = SynthesizeConfig(generators={"gpus": 0.5})
    assert with_generators(alone, alone, [{"CPU": 8, "GPU": 2}]).generators.count == 4
    learning = replace(alone, synthesis=SynthesisConfig(method="dafl", generator={"chains": 3}))
    assert with_generators(learning, learning, [{"CPU": 8, "GPU": 2}]).generators.count == 3
    transfer = TransferConfig(
        teacher={"network": "digits"}, data={"name": "digits"}, generators={"gpus": 1}, student={"gpus": 1}
    )
    # Its images are made before its student trains.
    assert with_generators(transfer, transfer.making, [{"CPU": 8, "GPU": 2}]).generators.count == 2


@pytest.mark.parametrize(
    ("device", "gpus", "processes", "share"),
    [
        ("auto", 1, [0.45, 0.45], 0.1),
        ("cuda", 1, [0.7], 0.3),
        ("auto", 2, [1.0], 1.0),
        ("auto", 4, [1.0, 1.0, 1.0], 1.0),
        ("auto", 4, [2.0, 1.0, 1.0], 0.0),
        ("auto", 4, [0.45] * 8, 0.1),
        ("auto", 2, [0.45] * 3, 0.55),
        ("auto", 2, [0.45, 0.6, 0.45], 0.0),  # with 0.4 taken, 0.45 and 0.45 may come to lie where 0.6 has to
        ("auto", 1, [0.6, 0.6], 0.0),
        ("auto", 1, [0.5, 0.5], 0.0),
        ("auto", 1, [0.995], 0.0),
        ("auto", 0, [0.5], 0.0),
        ("auto", 1, [0.0, 0.0], 0.0),
        ("cpu", 1, [0.45], 0.0),
    ],
)
def test_measuring_gets_what_is_left_of_a_gpu(device, gpus, processes, share):
    assert share_to_measure_on(device, gpus, processes) == share


@pytest.mark.parametrize(
    ("device", "gpus", "shares", "told"),
    [
        ("auto", 1, {"student.gpus": 0.0}, "a GPU is left idle, as no process reserves any: add --student.gpus 0.45 "),
        ("auto", 2, {"generators.gpus": 0.0, "student.gpus": 0.0}, "2 GPUs are left idle"),
        ("auto", 0, {"student.gpus": 0.0}, None),
        ("auto", 2, {"generators.gpus": 0.0, "student.gpus": 0.5}, None),
        ("cpu", 2, {"student.gpus": 0.0}, None),
    ],
)
def test_gpus_that_nobody_reserves_are_noticed(device, gpus, shares, told):
    notice = idle_gpus(device, shares, [{"CPU": 2, "GPU": gpus}])
    assert notice is None if told is None else notice.startswith(told)


@pytest.mark.parametrize(("gpus", "backend"), [(0.0, "gloo"), (0.5, "gloo"), (1.0, "nccl"), (2.0, "nccl")])
def test_workers_that_may_share_a_gpu_meet_by_gloo(gpus, backend):
    # NCCL refuses two ranks on one GPU.
    assert backend_for(gpus) == backend


@pytest.mark.parametrize(
    ("device", "processes", "address", "expected"),
    [
        ("auto", [0.0, 0.5], "", GPU_IN_USE),
        ("cuda", [1.0], "", GPU_IN_USE),
        ("auto", [0.0, 0.0], "", CPU),
        ("cpu", [0.5], "", CPU),
        ("auto", [0.5], "127.0.0.1:6379", CPU),  # on a cluster, a driver has reserved nothing
    ],
)
def test_the_driver_trains_and_measures_on_a_gpu_where_the_run_uses_them(
    cuda, monkeypatch, device, processes, address, expected
):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert device_of_driver(device, processes) == expected
    assert cuda.fractions == []


DAMAGED = ["--teacher.network", "digits", "--teacher.checkpoint", "LICENSE"]
NAMED = [
    "--synthesis.coefficients.l2",
    "0",
]  # otherwise coefficients follow from the teacher, which is looked for first
FILES = ["--data.name", "files", "--data.train", "LICENSE", "--data.test", "LICENSE"]


@pytest.mark.parametrize(
    ("job", "options"),
    [
        ("distill", [*DAMAGED, *NAMED]),
        ("synthesize", [*DAMAGED, *NAMED]),
        ("transfer", [*DAMAGED, *NAMED]),
        ("prune", [*DAMAGED, *NAMED]),
        ("quantize", [*DAMAGED, *NAMED]),
        ("train", ["--workers.count", "2", "--workers.cpus", "0.5", *FILES]),
        ("continual", ["--config", "configs/digits_continual.yaml", *DAMAGED]),
        ("search", ["--config", "tests/tiny.yaml", "--space", "tests/tiny_space.yaml", *DAMAGED[2:]]),
        ("reproduce", ["--table", "1", "--scale", "digits", *DAMAGED[2:]]),
    ],
)
def test_each_job_notices_an_idle_gpu_before_it_starts(cuda, monkeypatch, tmp_path, job, options):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    done = call(job, *options, "--run-dir", tmp_path / "run")
    assert "LICENSE" in done.stderr and done.returncode == 2  # it went no further
    assert "2 GPUs are left idle, as no process reserves any: add --" in done.stdout
    quiet = call(job, *options, "--device", "cpu", "--run-dir", tmp_path / "run")
    assert "LICENSE" in quiet.stderr and "idle" not in quiet.stdout
