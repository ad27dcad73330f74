"""Any settings are either accepted or refused in one sentence with exit status 2; the answer is never a stack trace."""

import contextlib
import io
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raydream.cli import Command, run_job
from raydream.config import DistillConfig
from raydream.runtime.placement import check_machine
from raydream.schedule import Schedule

pytestmark = pytest.mark.fuzz


def dotted_names(kind: type, prefix: str = "") -> list[str]:
    names = []
    for field in fields(kind):
        names.append(prefix + field.name)
        if is_dataclass(field.type):
            names += dotted_names(field.type, f"{prefix}{field.name}.")
    return names


NAMES = dotted_names(DistillConfig)
WORDS = st.sampled_from(["adaptive", "digits", "auto", "balanced", "null", "../x", "torchvision:resnet18", "run:x", ""])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), st.text(max_size=8), WORDS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=4,
)


def nested(chosen: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}; a name that lies below another one's value is left out."""
    made: dict[str, Any] = {}
    for name in sorted(chosen):
        *parents, last = name.split(".")
        place = made
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                break
        else:
            place[last] = chosen[name]
    return made


def answer(path: Path) -> tuple[int, str]:
    """Exit status, and what is said, of a job that only looks at what it is given."""

    def look(command: Command[DistillConfig]) -> None:
        check_machine(command.config, [{"CPU": 2}])
        Schedule.of(command.config)

    said = io.StringIO()
    arguments = ["fuzzed", "--config", str(path), "--run-dir", str(path.with_name("new"))]
    with contextlib.redirect_stderr(said), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        status = run_job(DistillConfig, "fuzzed", look)
    return status, said.getvalue()


def check(path: Path) -> None:
    status, said = answer(path)
    assert status in (0, 2), said
    assert "Traceback" not in said
    if status == 2:
        assert said.startswith("error: ") and said.count("\n") == 1, said


@settings(max_examples=800, deadline=None, derandomize=True, database=None)
@given(chosen=st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=3))
def test_settings_of_any_value(tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(yaml.safe_dump(nested(chosen)))
    check(path)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8"))))
def test_files_of_any_content(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    check(path)
