"""Keyword arguments of networks, as configurations name them: whatever YAML holds, kept as it is written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from raydream.cli import parse
from raydream.config import DataConfig, DistillConfig, StudentConfig, TeacherConfig, TrainingConfig
from raydream.config.conversion import as_dict, validate
from raydream.errors import InputError
from raydream.networks import build_network
from raydream.runs.frames import differences
from raydream.runs.run_folder import first_difference
from raydream.store.records import BatchId, Order
from raydream.store.yaml_files import write_yaml
from raydream.synthesis.recipe import recipe_of
from raydream.teachers.loading import library_path
from tests.calls import TINY
from tests.tiny import tiny_synthesis, tiny_targets, tiny_teacher

WRITTEN: dict[str, dict[str, Any]] = {
    # as YAML, and what the factory is given
    "{width: 8}": {"width": 8},
    "{conv6_kernel: [5, 5]}": {"conv6_kernel": [5, 5]},
    "{blocks: [[64, 2], [128, 2]], dilate: [false, true]}": {"blocks": [[64, 2], [128, 2]], "dilate": [False, True]},
    "{stem: {kernel: [7, 7], norm: {name: batch, eps: 1.0e-3}}}": {
        "stem": {"kernel": [7, 7], "norm": {"name": "batch", "eps": 1e-3}}
    },
    "{downsample: null, layers: [null, 2]}": {"downsample": None, "layers": [None, 2]},
    "{a: '5', b: 'true', c: 'null', d: '[1]', e: '', f: '1e3', g: 2020-01-01}": {
        **{"a": "5", "b": "true", "c": "null", "d": "[1]", "e": "", "f": "1e3", "g": "2020-01-01"}
    },
    "{nothing: [], none: {}}": {"nothing": [], "none": {}},
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_command_line_a_file_and_a_run_folder_give_the_same_arguments(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"teacher: {{arguments: {text}}}\nstudent: {{arguments: {text}}}")
    for given in (
        ["--teacher.arguments", text, f"--student.arguments={text}"],
        ["--config", str(tmp_path / "mine.yaml")],
    ):
        config = parse(DistillConfig, "", ["--config", str(TINY), *given, "--run-dir", str(tmp_path / "run")]).config
        for arguments in (config.teacher.arguments, config.student.arguments):
            assert arguments == WRITTEN[text]
            assert json.dumps(arguments) == json.dumps(dict(sorted(WRITTEN[text].items())))  # True is no 1
    write_yaml(tmp_path / "config.yaml", as_dict(config))
    assert validate(DistillConfig, yaml.safe_load((tmp_path / "config.yaml").read_text())) == config


def test_a_run_is_resumed_with_its_arguments(tmp_path: Path) -> None:
    run, text = str(tmp_path / "run"), "{" + ", ".join(each[1:-1] for each in WRITTEN) + "}"
    begun = parse(DistillConfig, "", ["--config", str(TINY), "--student.arguments", text, "--run-dir", run])
    begun.folder("distill")
    assert len(begun.config.student.arguments) == sum(map(len, WRITTEN.values()))
    assert parse(DistillConfig, "", ["--resume", run]).config == begun.config
    assert parse(DistillConfig, "", ["--resume", run, "--student.arguments", text]).config == begun.config
    with pytest.raises(InputError, match=r"student.arguments.a = None: must be '5', as in "):
        parse(DistillConfig, "", ["--resume", run, "--student.arguments", "{other: [1]}"])


SINGLE = [
    (["--teacher.arguments.width", "9"], {"width": 9, "stem": {"kernel": 3, "norm": "batch"}}),
    (["--teacher.arguments.width=9"], {"width": 9, "stem": {"kernel": 3, "norm": "batch"}}),
    (["--teacher.arguments.stem.kernel", "[5, 5]"], {"width": 8, "stem": {"kernel": [5, 5], "norm": "batch"}}),
    (["--teacher.arguments.stem", "null"], {"width": 8, "stem": None}),
    (["--teacher.arguments.name", "'5'"], {"width": 8, "stem": {"kernel": 3, "norm": "batch"}, "name": "5"}),
    (["--teacher.arguments.rate", "1e-3"], {"width": 8, "stem": {"kernel": 3, "norm": "batch"}, "rate": 1e-3}),
    (["--teacher.arguments", "{width: 7}", "--teacher.arguments.depth", "2"], {"width": 7, "depth": 2}),
    (["--teacher.arguments", "{width: 7}"], {"width": 7}),
]


@pytest.mark.parametrize(("options", "expected"), SINGLE, ids=str)
def test_one_argument_is_set_beside_those_of_a_file(options: list[str], expected: dict, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("teacher: {arguments: {width: 8, stem: {kernel: 3, norm: batch}}}")
    given = ["--config", str(tmp_path / "mine.yaml"), *options, "--run-dir", str(tmp_path / "run")]
    assert parse(DistillConfig, "", given).config.teacher.arguments == expected


REFUSED = [
    (["--teacher.arguments", "[1]"], "teacher.arguments", "dictionary"),
    (["--teacher.arguments", "8"], "teacher.arguments", "dictionary"),
    (["--teacher.arguments", "null"], "teacher.arguments", "dictionary"),
    (["--teacher.arguments", "{1: 2}"], "teacher.arguments", "has the name 1, which is no text"),
    (["--teacher.arguments", "{a: {true: 2}}"], "teacher.arguments", "a has the name True, which is no text"),
    (["--teacher.arguments", "{a: [1, .nan]}"], "teacher.arguments", "a.1 is nan"),
    (["--teacher.arguments", "{a: .inf}"], "teacher.arguments", "finite numbers"),
    (["--teacher.arguments", "{a: !!binary aGk=}"], "teacher.arguments", "a is of type bytes"),
    (["--teacher.arguments", "{a: !!set {b}}"], "teacher.arguments", "a is of type set"),
    (["--teacher.arguments", "&a {k: *a}"], "", "nested"),
    (["--teacher.arguments", "{k: &a [*a]}"], "", "nested"),
    (["--teacher.arguments", f"{{k: {'[' * 60}{']' * 60}}}"], "", "nested"),
    (["--teacher.arguments", "{a: [}"], "teacher.arguments", "dictionary"),
    (["--teacher.arguments.a"], "--teacher.arguments.a", "followed by its value"),
    (["--teacher.arguments.a", "[1"], "--teacher.arguments.a", "YAML"),
    (["--teacher.arguments.a.b", "1", "--teacher.arguments.a", "2"], "", None),
    (["--techer.arguments.a", "3"], "--techer.arguments.a", "unknown option --techer.arguments.a"),
]


@pytest.mark.parametrize(("options", "field", "says"), REFUSED, ids=lambda value: str(value)[:60])
def test_arguments_that_no_file_can_keep_are_refused(options, field, says, tmp_path: Path) -> None:
    given = ["--config", str(TINY), *options, "--run-dir", str(tmp_path / "run")]
    if says is None:
        assert parse(DistillConfig, "", given).config.teacher.arguments["a"] == 2
        return
    with pytest.raises(InputError) as refused:
        parse(DistillConfig, "", given)
    assert says in str(refused.value) and "\n" not in str(refused.value), str(refused.value)
    assert len(str(refused.value)) < 1000 and (not field or refused.value.field == field), str(refused.value)


@pytest.mark.parametrize("kind", [TeacherConfig, StudentConfig])
def test_tuples_and_the_order_of_names_make_no_difference(kind: type) -> None:
    one = kind(arguments={"kernel": (5, (1, 2)), "stem": {"pad": (0,)}, "width": 8})
    other = kind(arguments={"width": 8, "stem": {"pad": [0]}, "kernel": [5, [1, 2]]})
    assert one == other and as_dict(one) == as_dict(other) and repr(one) == repr(other)


def test_fingerprints_and_comparisons_follow_from_the_arguments() -> None:
    teacher = tiny_teacher()
    order = Order(BatchId(0, 0), tiny_targets().numpy(), 0)

    def recipe(arguments: dict[str, Any]) -> str:
        described = replace(teacher, config=replace(teacher.config, arguments=arguments))
        return recipe_of(described, tiny_synthesis(), order, None, {})

    def path(arguments: dict[str, Any]) -> Path:
        return library_path(TeacherConfig(arguments=arguments), TrainingConfig(), DataConfig())

    distinct = [{"k": [5, 5]}, {"k": [5, 3]}, {"k": "[5, 5]"}, {"k": None}, {"k": "null"}, {"k": {"a": 1, "b": 2}}]
    distinct += [{"k": {"b": 2, "a": 1}}, {"k": True}, {}]
    for fingerprint in (recipe, path):
        found = [fingerprint(arguments) for arguments in distinct]
        assert len({*found}) == len(distinct)
        assert found[0] == fingerprint({"k": (5, 5)})
    one, other = ({"student": as_dict(StudentConfig(arguments={"stem": {"k": k}, "w": 1}))} for k in ([5, 5], [3, 5]))
    assert first_difference(one, other) == ("student.arguments.stem.k", [5, 5], [3, 5])
    assert differences([one, other]) == {"student.arguments.stem.k": [[5, 5], [3, 5]]}


def test_the_path_of_a_teacher_of_plain_arguments_is_that_of_version_0_1() -> None:
    name = library_path(TeacherConfig(arguments={"width": 16}), TrainingConfig(), DataConfig()).name
    assert name == "digits-8de0adba9bedc992.safetensors"


class Kernels(nn.Module):
    """A network whose constructor is as particular as real ones are."""

    def __init__(
        self,
        kernel=(3, 3),
        strides: tuple[int, ...] = (1, 1),
        layers: list[int] | None = None,
        shapes: "tuple[tuple[int, int], ...]" = (),
        either: list[int] | tuple[int, ...] = (),
        stem: dict[str, Any] | None = None,
        act: str | None = "relu",
        **others: Any,
    ) -> None:
        super().__init__()
        assert isinstance(kernel, tuple) and isinstance(strides, tuple) and {shapes: 1}
        assert isinstance(either, list | tuple) and isinstance(others.get("other", []), list)
        self.given = (kernel, strides, list(layers or []), shapes, list(either), stem, act, others)
        if layers:
            layers.pop()  # as constructors do that take their arguments apart
        self.conv = nn.Conv2d(3, 4, **(stem or {"kernel_size": kernel}))


ASKED = {
    "kernel": [5, 5],
    "strides": [2, 1],
    "layers": [3, 4],
    "shapes": [[1, 2], [3, 4]],
    "either": [1],
    "stem": {"kernel_size": [3, 5], "padding": [1, 2], "bias": False},
    "act": None,
    "other": [[1]],
}


def test_a_constructor_gets_lists_and_tuples_as_it_declares_them_and_may_change_them() -> None:
    config = TeacherConfig(arguments=ASKED)
    for _ in range(2):
        network = build_network(f"{__name__}:Kernels", config.arguments, 3, 10)
        stem = ASKED["stem"]
        assert network.given == ((5, 5), (2, 1), [3, 4], ((1, 2), (3, 4)), [1], stem, None, {"other": [[1]]})
        assert network.conv(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8) and network.conv.kernel_size == (3, 5)
    assert config == TeacherConfig(arguments=ASKED)
