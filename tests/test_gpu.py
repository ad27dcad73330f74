"""What a process does with a GPU, where there is none.

No test here has met a GPU. Three ways stand in for one: `Recorded` answers for a few functions of `torch.cuda`, fake
tensors follow devices through forward passes, and a private Ray is told that it has two GPUs. What only a GPU can show
(kernels, memory, equal bits) is left to the tests that are skipped without one.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from raydream.compute import arithmetic, driver_version, use_device

ROOT = Path(__file__).parents[1]


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
        each.allow_tf32 = allowed


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_the_device_has_the_index_that_prepare_model_asks_for(cuda, device):
    # Ray Train has made it current by then: the workers of a node see all GPUs of the node's workers.
    assert use_device(device, 1.0, 1.0) == torch.device("cuda", 1)


def test_fp32_is_not_tf32(cuda):
    torch.backends.cuda.matmul.allow_tf32 = True
    use_device("auto", 1.0, 1.0)
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("gpus", "limited"), [(0.25, [0.25]), (0.9, [0.9]), (1.0, []), (4.0, [])])
def test_a_process_with_a_fraction_of_a_gpu_takes_no_more_of_its_memory(cuda, gpus, limited):
    use_device("auto", 1.0, gpus)
    assert cuda.fractions == [(share, torch.device("cuda", 1)) for share in limited]


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
