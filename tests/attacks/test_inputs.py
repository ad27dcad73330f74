"""Hostile and broken weights, networks and settings: one sentence, at once, and nothing has begun."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

import raydream
from raydream.cli import parse
from raydream.config import DistillConfig
from tests.attacks.asked import distill, refusal
from tests.tiny import tiny_network


def own(factory: str, arguments: dict[str, object]) -> dict[str, object]:
    """A network of this file."""
    return {"network": f"{__name__}:{factory}", "arguments": arguments}


# Weights


def changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: {**state, name: change(state[name])}


def with_value(number: float) -> Callable[[Tensor], Tensor]:
    return lambda value: value.clone().index_fill_(0, torch.tensor([1]), number)


def of_itself(state: dict[str, Tensor]) -> object:
    found: dict[str, object] = {"epoch": 3}
    found["model"] = found
    return found


def of_each_other(state: dict[str, Tensor]) -> object:
    found: dict[str, object] = {}
    found["net"] = {"state_dict": found}
    return found


def all_as(kind: torch.dtype) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: {name: value.to(kind) for name, value in state.items()}


WEIGHTS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "NaN": (changed("0.weight", with_value(float("nan"))), "0.weight holds NaN or infinity"),
    "infinity": (changed("8.bias", with_value(-float("inf"))), "8.bias holds NaN or infinity"),
    "more than fp32 holds": (changed("8.bias", lambda v: v.double() + 1e300), "8.bias holds NaN or infinity"),
    "a NaN mean": (changed("1.running_mean", with_value(float("nan"))), "1.running_mean holds NaN"),
    "a negative variance": (changed("1.running_var", with_value(-1e-3)), "1.running_var holds negative variances"),
    "all zeros": (lambda state: {n: torch.zeros_like(v) for n, v in state.items()}, "nothing but zeros"),
    "complex": (changed("0.weight", lambda v: v.to(torch.complex64)), "0.weight complex64 for float32"),
    "int8": (all_as(torch.int8), "0.weight int8 for float32"),
    "bool": (all_as(torch.bool), "0.weight bool for float32"),
    "a quantized tensor": (
        changed("0.weight", lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8)),
        "0.weight: a quantized tensor",
    ),
    "quantized by channel": (
        changed("0.weight", lambda v: torch.quantize_per_channel(v, torch.ones(8), torch.zeros(8), 0, torch.qint8)),
        "0.weight: a quantized tensor",
    ),
    "packed numbers": (
        changed("0.weight", lambda v: torch.zeros(v.shape, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)),
        "0.weight float4_e2m1fn_x2 for float32",
    ),
    "a dictionary of itself": (of_itself, "model: a dictionary that it lies in"),
    "dictionaries of each other": (of_each_other, "state_dict: a dictionary that it lies in"),
}


@pytest.mark.filterwarnings("ignore:.*prototype stage")
@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_no_network_can_have_are_refused(what: str, tmp_path: Path) -> None:
    make, says = WEIGHTS[what]
    torch.save(make(dict(tiny_network().state_dict())), tmp_path / "weights.pt")
    error = refusal(lambda: distill(teacher={"checkpoint": str(tmp_path / "weights.pt")}))
    assert error.field == "teacher.checkpoint" and says in str(error), str(error)


HARMLESS = {
    "as they are": lambda state: state,
    "a variance of zero": changed("1.running_var", with_value(0.0)),
    "a bias of zeros": changed("8.bias", torch.zeros_like),
    "counters of another type": changed("1.num_batches_tracked", lambda v: v.double()),
    "half precision": lambda state: {n: v.half() if v.is_floating_point() else v for n, v in state.items()},
    "fp8": lambda state: {n: v.to(torch.float8_e4m3fn) if v.is_floating_point() else v for n, v in state.items()},
}


@pytest.mark.parametrize("what", HARMLESS)
def test_weights_at_the_boundary_are_taken(what: str, tmp_path: Path) -> None:
    torch.save(HARMLESS[what](dict(tiny_network().state_dict())), tmp_path / "weights.pt")
    distill(teacher={"checkpoint": str(tmp_path / "weights.pt")})


class Remembering(nn.Conv2d):
    """A layer whose state is more than tensors."""

    def get_extra_state(self) -> list[int]:
        return [1]


MODULES: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "NaN": (lambda network: network[0].weight.data.fill_(float("nan")), "0.weight holds NaN or infinity"),
    "a negative variance": (lambda network: network[1].running_var.fill_(-1.0), "1.running_var holds negative"),
    "all zeros": (lambda network: [value.zero_() for value in network.state_dict().values()], "nothing but zeros"),
    "complex": (lambda network: network[0].to(torch.complex64), "0.weight is complex64"),
    "no values": (lambda network: network.to("meta"), "0.weight is a tensor without values"),
    "other things": (lambda network: setattr(network[0], "__class__", Remembering), "0._extra_state is list"),
}


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("what", MODULES)
def test_a_module_of_such_weights_is_refused_too(what: str) -> None:
    change, says = MODULES[what]
    network = tiny_network()
    change(network)
    given = {"input_shape": (1, 8, 8), "mean": [0.3], "std": [0.35], "classes": 10, "device": "cpu"}
    assert says in str(refusal(lambda: raydream.load_teacher(network, **given)))


# Networks


class Answering(nn.Module):
    """The tiny network with something done to its images or its answer."""

    def __init__(self, after: str = "", before: str = "", statement: str = "") -> None:
        super().__init__()
        self.body, self.after, self.before, self.statement = tiny_network(), after, before, statement

    def forward(self, x: Tensor) -> object:
        exec(self.statement)
        if self.before:
            x = eval(self.before)
        x = self.body(x)
        return eval(self.after) if self.after else x


ANSWERS = {
    "NaN": ("x * float('nan')", "a probe gave NaN or infinity"),
    "infinity": ("x + float('inf')", "a probe gave NaN or infinity"),
    "NaN now and then": ("torch.where(x > x.mean(), x, float('nan'))", "a probe gave NaN or infinity"),
    "complex": ("x.to(torch.complex64)", "a probe gave complex64"),
    "whole numbers": ("x.long()", "a probe gave int64"),
    "true and false": ("x > 0", "a probe gave bool"),
    "detached": ("x.detach()", "its answer is detached from the images"),
    "computed by NumPy": ("torch.from_numpy(x.detach().numpy())", "its answer is detached from the images"),
    "steps": ("x.round()", "is zero everywhere"),
    "a gradient of NaN": ("x + (x - x).abs().sqrt()", "its gradient holds NaN or infinity"),
    "constant": ("x * 0", "is zero everywhere"),
    "batches of two alone": ("x.view(2, 10)", "a probe of one image failed"),
    "squeezed": ("x.squeeze()", "a probe of one image gave (10,)"),
    "the end of the process": ("sys.exit(0)", "it ends the process (SystemExit: 0)"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_networks_whose_answers_nothing_can_be_learned_from_are_refused(what: str, tmp_path: Path) -> None:
    after, says = ANSWERS[what]
    torch.save(Answering().state_dict(), tmp_path / "weights.pt")
    described = own("Answering", {"after": after}) | {"checkpoint": str(tmp_path / "weights.pt")}
    error = refusal(lambda: distill(teacher=described))
    assert error.field.startswith("teacher.") and says in str(error), str(error)


PUPILS = {
    "NaN": ("x * float('nan')", "a probe gave NaN or infinity"),
    "detached": ("x.detach()", "its answer is detached from its weights"),
    "squeezed": ("x.squeeze()", "a probe of one image gave (10,)"),
    "the end of the process": ("sys.exit(3)", "it ends the process (SystemExit: 3)"),
}


@pytest.mark.parametrize("what", PUPILS)
def test_students_that_cannot_learn_are_refused(what: str) -> None:
    after, says = PUPILS[what]
    error = refusal(lambda: distill(student=own("Answering", {"after": after})))
    assert error.field == "student.network" and says in str(error), str(error)


CHANGES = {
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "default device": "torch.set_default_device('meta')",
    "gradient mode": "torch.set_grad_enabled(False)",
    "autocast mode": "torch.set_autocast_enabled('cpu', True)",
    "number of threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "working directory": "__import__('os').chdir('/')",
}


def changing(statement: str) -> nn.Module:
    """A factory that does something else besides."""
    exec(statement)
    return tiny_network()


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("how", ["as it is built", "as it runs"])
def test_networks_that_change_the_process_are_refused_and_it_is_restored(what: str, how: str) -> None:
    factory = "changing" if how == "as it is built" else "Answering"
    student = own(factory, {"statement": CHANGES[what]})
    assert f"{what} for the whole process" in str(refusal(lambda: distill(student=student)))


@pytest.mark.parametrize("code", ["sys.exit()", "raise SystemExit('usage: train.py')", "exit_now = sys.exit"])
def test_modules_and_factories_that_end_the_process_are_refused(code: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "ending.py").write_text(f"import sys\n{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ending", raising=False)
    teacher = {"network": "ending:exit_now", "arguments": {}}
    assert "it ends the process (SystemExit: " in str(refusal(lambda: distill(teacher=teacher)))


def scripted(part: bool = False) -> nn.Module:
    """TorchScript, as a whole or within a network."""
    network = torch.jit.script(tiny_network())
    return nn.Sequential(nn.Identity(), network) if part else network


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("part", [False, True])
def test_script_modules_are_refused(part: bool) -> None:
    assert "it is a ScriptModule" in str(refusal(lambda: distill(teacher=own("scripted", {"part": part}))))
    given = {"input_shape": (1, 8, 8), "mean": [0.3], "std": [0.35], "classes": 10, "device": "cpu"}
    assert "it is a ScriptModule" in str(refusal(lambda: raydream.load_teacher(scripted(part), **given)))


# Command line


TYPED = [
    ["--synthesis.betas", "&a [*a]"],
    ["--synthesis.betas", "&a [0.9, *a]"],
    ["--synthesis.stages", "&a [{size: *a}, {}]"],
    ["--teacher", "&a {arguments: *a}"],
    ["--teacher.arguments", "&a {k: [*a]}"],
    ["--teacher.mean", "[" * 3000],
    ["--teacher.mean", "[" * 900 + "]" * 900],
    ["--seed", "9" * 5000],
    ["--seed", "["],
    ["--config", "{seed: &a [*a]}"],
]


@pytest.mark.parametrize("options", TYPED, ids=lambda options: " ".join(options)[:40])
def test_yaml_that_nests_itself_or_without_end_is_refused(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"{options[0].removeprefix('--')}: {options[1]}")
    for given in (options, ["--config", str(tmp_path / "mine.yaml")]):
        refusal(lambda given=given: parse(DistillConfig, "", [*given, "--run-dir", str(tmp_path / "run")]))


# Run folders that are named as run:DIR


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: (path / "network.json").write_text('"digits"'), "network.json"),
    "null": (lambda path: (path / "network.json").write_text("null"), "network.json"),
    "a list": (lambda path: (path / "network.json").write_text("[1]"), "network.json"),
    "binary": (lambda path: (path / "network.json").write_bytes(b"\xff\xfe\x00{"), "network.json"),
    "nothing": (lambda path: (path / "network.json").write_bytes(b""), "network.json"),
    "levels without end": (lambda path: (path / "network.json").write_text("[" * 100_000), "network.json"),
    "another type": (lambda path: (path / "network.json").write_text('{"network": 5, "arguments": []}'), ""),
    "no student": (lambda path: rewritten(path, student=None), "a run that trained a network"),
    "a student of text": (lambda path: rewritten(path, student="digits"), "a run that trained a network"),
    "no teacher": (lambda path: rewritten(path, teacher=None), "a run that has a teacher"),
    "a teacher of other names": (lambda path: rewritten(path, teacher={1: 2}), ""),
}


def rewritten(path: Path, **settings: object) -> None:
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump(config | settings))
    (path / "student.safetensors").write_bytes((path / "teacher.safetensors").read_bytes())


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_descriptions_of_networks_are_refused(what: str, run_dir: Path) -> None:
    damage, says = DAMAGED[what]
    damage(run_dir)
    assert says in str(refusal(lambda: distill(teacher={"network": f"run:{run_dir}"})))
