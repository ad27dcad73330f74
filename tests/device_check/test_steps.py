"""The steps themselves, on a CPU and in this process where nothing is compiled."""

import hashlib
import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from raydream.device_check import bits, smoke, speed
from raydream.device_check.bottleneck import bottleneck_network
from raydream.device_check.facts import facts, rates
from raydream.device_check.measuring import PROFILED, _Watch, calls_an_update, measure
from raydream.device_check.steps import StepError
from raydream.device_check.subjects import Subject, _full, find_subject
from raydream.device_check.syncs import places_of
from raydream.networks import parameters_of
from raydream.synthesis import SYNTHESIZERS
from raydream.synthesis.inversion import Inversion
from raydream.synthesis.stages import stages_of

CPU = torch.device("cpu")


def test_facts_name_versions_device_and_flags():
    found = facts("cpu")
    assert found["has"] == {"cuda": False, "ray": True} and found["device"] == "cpu" and "cuda" not in found
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0] and found["versions"]["pydantic"]
    assert found["flags"]["deterministic_algorithms"] is False and found["cpus"] >= 1


def test_rates_are_positive():
    found = rates("cpu")
    assert {"fp32", "bf16"} == set(found["operations_per_s"]) and set(found["bytes_per_s"]) == {"on_device"}
    numbers = [*found["operations_per_s"].values(), *found["bytes_per_s"].values(), found["launch_s"]]
    assert all(math.isfinite(number) and number > 0 for number in numbers)


def test_the_smoke_step_tries_every_synthesizer_a_distillation_step_and_a_latency():
    found = smoke.smoke("cpu")
    assert set(SYNTHESIZERS) | {"distillation", "latency"} <= set(found)
    assert set(found["adaptive"]["losses"]) >= {"classification", "feature", "competition"}
    assert found["distillation"]["last_loss"] > 0 and found["latency"]["median_s"] > 0


class Broken(Inversion):
    """Returns images of another size."""

    def synthesize(self, request):
        made = super().synthesize(request)
        return replace(made, images=made.images[:, :, 1:])


class Crashing(Inversion):
    """Fails as a device would."""

    def synthesize(self, request):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")


def test_the_smoke_step_names_all_that_failed_and_keeps_the_rest(monkeypatch):
    monkeypatch.setattr(smoke, "SYNTHESIZERS", {"noise": Broken, "deepdream": Crashing, "deep_inversion": Inversion})
    with pytest.raises(
        StepError, match=r"noise: StepError: images are .*; deepdream: RuntimeError: CUDA error"
    ) as caught:
        smoke.smoke("cpu")
    assert "more lines" not in str(caught.value)
    assert {"deep_inversion", "distillation", "latency"} <= set(caught.value.figures)


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (speed.published, {"network": "resnet20"}),
        (speed.engine, {"network": "resnet20"}),
        (speed.engine, {"network": "resnet50"}),
        (speed.bare, {"network": "resnet20"}),
        (speed.bare, {"network": "resnet50"}),
    ],
)
def test_each_loop_is_measured_at_each_size(step, options):
    found = step("cpu", **options)
    sizes = {"resnet20": ["8x8"], "resnet50": ["16x16", "32x32"]}[options["network"]]
    assert [name for name in found if "x" in name] == sizes
    for size in sizes:
        assert found[size]["ms_per_update"] > 0 and found[size]["first_update_s"] > 0
    assert found["updates"] > PROFILED.stop and found["images"] > 1


def test_an_engine_that_did_not_run_as_asked_is_a_failure(monkeypatch):
    class Noting(Inversion):
        def synthesize(self, request):
            return replace(super().synthesize(request), notes=("compiling failed, going on without",))

    monkeypatch.setattr(speed, "SYNTHESIZERS", {"deep_inversion": Noting})
    with pytest.raises(StepError, match="did not run as asked: compiling failed") as caught:
        speed.engine("cpu", "resnet20")
    assert caught.value.figures["8x8"]["ms_per_update"] > 0


def test_each_stage_has_its_own_times(monkeypatch):
    clock = iter(range(1000))
    now = 0.0

    def loop(on_update):
        nonlocal now
        for update in range(12):
            now += 100.0 if next(clock) in (0, 8) else 1.0 if update < 8 else 3.0
            on_update()

    monkeypatch.setattr("time.perf_counter", lambda: now)
    first, second = measure(loop, [8, 4], CPU)
    assert first == {"ms_per_update": 1000.0, "first_update_s": 100.0}
    assert second == {"ms_per_update": 3000.0, "first_update_s": 100.0}


def test_a_few_updates_of_a_stage_are_profiled():
    def loop(on_update):
        for _ in range(16):
            torch.ones(3).sum()
            on_update()

    watch = _Watch(CPU, [0], [0, 8])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that there is no CUDA to profile
        watch.run(loop)
    none = {"launches_per_update": 0.0, "copies_per_update": 0.0}
    assert watch.calls == {0: none, 8: none}


def test_launches_are_counted_for_an_update():
    counts = {
        "cudaLaunchKernel": 30,
        "cuLaunchKernelEx": 6,
        "cudaGraphLaunch": 3,
        "cudaMemcpyAsync": 9,
        "aten::add": 50,
    }
    assert calls_an_update(counts) == {"launches_per_update": 13.0, "copies_per_update": 3.0}


def test_bits_are_compared_in_a_process_and_across():
    equal, error = {"in_a_process": True, "across_processes": True}, "RuntimeError: no deterministic form"
    assert bits.compared(["a", "a"], ["a", "a"]) == equal
    assert bits.compared(["a", "a"], ["b", "b"]) == {"in_a_process": True, "across_processes": False}
    assert bits.compared(["a", "b"], ["a", "b"]) == {"in_a_process": False, "across_processes": False}
    assert bits.compared([error], ["a", "a"]) == bits.compared(["a", "a"], [error]) == {"error": error}


@pytest.mark.parametrize(
    ("deterministic", "one", "other", "fails"),
    [
        (True, ["a", "a"], ["a", "a"], None),
        (True, ["a", "a"], ["b", "b"], "are set, bits differ: net"),
        (False, ["a", "a"], ["b", "b"], None),
        (False, ["a", "a"], ["out of order"], "net: out of order"),
    ],
)
def test_different_bits_are_a_failure_where_all_switches_are_set(deterministic, one, other, fails, monkeypatch):
    monkeypatch.setattr(bits, "_in_two_processes", lambda device, deterministic: [{"net": one}, {"net": other}])
    if fails is None:
        assert "net" in bits.equal_bits("cpu", deterministic)
    else:
        with pytest.raises(StepError, match=fails):
            bits.equal_bits("cpu", deterministic)


def test_a_digest_is_of_the_images(monkeypatch):
    subject = replace(find_subject("resnet20", "cpu"), updates=2)
    monkeypatch.setattr(bits, "UPDATES", 2)
    one, other = bits._made_twice("resnet20", "cpu", "off")
    made = SYNTHESIZERS["deep_inversion"](subject.teacher, subject.synthesis()).synthesize(
        bits.Request(subject.targets(), seed=0)  # type: ignore[attr-defined]
    )
    assert one == other == hashlib.blake2b(made.images.numpy().tobytes(), digest_size=8).hexdigest()


def test_waits_are_counted_by_line():
    def warning(text: str, line: int) -> warnings.WarningMessage:
        return warnings.WarningMessage(text, UserWarning, "/a/students/augmentation.py", line)

    sync = "called a synchronizing CUDA operation (Triggered internally at x)"
    found = places_of([warning(sync, 26), warning(sync, 35), warning("something else", 26), warning(sync, 35)])
    assert list(found.items()) == [("students/augmentation.py:35", 2), ("students/augmentation.py:26", 1)]


def test_resnet50_is_that_of_the_paper():
    with torch.device("meta"):
        network = bottleneck_network()
    assert parameters_of(network) == 25_557_032
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == 53
    small = bottleneck_network("11", width=4, classes=7)
    assert small(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert small[:-3](torch.zeros(2, 3, 64, 64)).shape == (2, 32, 8, 8)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "images", "sizes"),
    [
        ("resnet20", (3, 32, 32), 10, 256, [(32, 32)]),
        ("resnet50", (3, 224, 224), 1000, 84, [(112, 112), (224, 224)]),
        ("pooling", (3, 64, 64), 10, 64, [(64, 64)]),
    ],
)
def test_subjects_have_their_full_size_on_a_gpu(name, shape, classes, images, sizes):
    subject = _full(name, CPU)
    described = subject.teacher.config
    assert described.input_shape == shape and described.classes == classes and subject.images == images
    stages = stages_of(subject.synthesis(), described.input_shape[1:])
    assert [stage.size for stage in stages] == sizes and all(stage.iterations == subject.updates for stage in stages)
    if name == "resnet20":
        assert subject.updates >= 400
    assert subject.targets().max() < classes


def test_random_weights_are_the_same_in_each_process_and_not_trivial():
    one, other = (find_subject("resnet50", "cpu") for _ in range(2))
    assert isinstance(one, Subject) and one.teacher.fingerprint == other.teacher.fingerprint
    logits = one.teacher.logits(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8))
    assert logits.std() > 0
