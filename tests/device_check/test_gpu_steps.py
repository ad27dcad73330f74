"""The steps that need a GPU, on a CPU: what they ask torch.cuda for is recorded, and memory runs out as it would there.

No GPU has run these tests; they see to it that the steps run through, and fail where they should.
"""

from types import SimpleNamespace

import pytest
import torch

from raydream.device_check import memory, syncs
from raydream.device_check.steps import STEPS, StepError
from raydream.device_check.subjects import find_subject

TOTAL = 1_000_000_000


class Cuda:
    """The calls of torch.cuda that the steps make."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.limit: float | None = None
        self.modes: list[str] = []
        answers = {
            "current_device": lambda: 0,
            "memory_allocated": lambda index: 1_000_000,
            "max_memory_allocated": lambda: 101_000_000,
            "reset_peak_memory_stats": lambda: None,
            "empty_cache": lambda: None,
            "synchronize": lambda: None,
            "get_device_properties": lambda index: SimpleNamespace(total_memory=TOTAL),
            "set_per_process_memory_fraction": lambda share, index: setattr(self, "limit", share),
            "set_sync_debug_mode": self.modes.append,
        }
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, answer)


def limited_to(fitting: int, monkeypatch: pytest.MonkeyPatch, spoilt: float = 0.0) -> tuple[Cuda, dict]:
    """The memory step where limited memory holds so many images, and also changes what the network computes."""
    cuda, subject = Cuda(monkeypatch), find_subject("pooling", "cpu")

    def convolved(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if cuda.limit is None:
            return output
        if len(inputs[0]) > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return output * (1 + spoilt)

    subject.teacher.network[0].register_forward_hook(convolved)
    monkeypatch.setattr(memory, "find_subject", lambda network, device: subject)
    return cuda, memory.limited("cuda", "resnet50")


def test_a_batch_too_large_for_a_tenth_of_the_memory_has_the_same_gradient_in_chunks(monkeypatch):
    cuda, found = limited_to(2, monkeypatch)
    image_bytes = 6 * 3 * 32 * 32 * 4
    assert cuda.limit == pytest.approx((1_000_000 + 2 * image_bytes + 10_000_000) / TOTAL)
    assert found["halvings"] == len(found["notes"]) == 2 and "out of memory" in found["notes"][0]
    assert found["relative_difference"] < 1e-4


def test_memory_that_is_enough_or_not_spoken_of_is_a_failure(monkeypatch):
    with pytest.raises(StepError, match="a tenth of the memory was enough") as caught:
        limited_to(6, monkeypatch)
    assert caught.value.figures["limit_mib"] > 0


def test_another_gradient_in_chunks_is_a_failure(monkeypatch):
    with pytest.raises(StepError, match="in chunks, the gradient differs by"):
        limited_to(2, monkeypatch, spoilt=0.5)


def test_a_distillation_step_is_watched_after_others(monkeypatch):
    cuda, modes = Cuda(monkeypatch), []
    learner = syncs.distiller(find_subject("resnet20", "cpu"), 4)  # type: ignore[attr-defined]
    step = learner.step
    monkeypatch.setattr(learner, "step", lambda images, number: modes.append([*cuda.modes]) or step(images, number))
    monkeypatch.setattr(syncs, "distiller", lambda subject, steps: learner)
    assert syncs.distillation_syncs("cpu") == {"waits": 0, "places": {}}
    assert modes == [[], [], [], ["warn"]] and cuda.modes == ["warn", "default"]


def test_only_steps_that_a_cpu_cannot_run_need_a_gpu():
    needy = {step.target.rpartition(":")[2] for step in STEPS if "cuda" in step.needs}
    assert {"limited", "distillation_syncs", "student", "workers", "generators"} <= needy
    anywhere = {step.name for step in STEPS if not step.needs}
    assert {"facts", "smoke", "resnet20_published", "resnet20_engine_compiled", "bits", "resnet50_warm"} <= anywhere
