"""Entries of the settings reference: what `--help` prints and docs/reference/settings shows."""

import ast
import inspect
from dataclasses import fields

import pytest

import raydream.config as config
from raydream.cli.entries import entries_of, sections_of
from raydream.cli.settings import defaults_of
from raydream.config import CoefficientsConfig, StudentConfig, SynthesisConfig, TransferConfig

KINDS = [getattr(config, name) for name in config.__all__ if inspect.isclass(getattr(config, name))]
KINDS = [kind for kind in KINDS if hasattr(kind, "__pydantic_fields__")]


def docstrings(kind: type) -> dict[str, str]:
    """The text below each field of a class, as it stands in the source."""
    body = ast.parse(inspect.getsource(inspect.getmodule(kind))).body
    (own,) = (node.body for node in body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    found, last = {}, ""
    for node in own:
        if isinstance(node, ast.AnnAssign):
            last = ast.unparse(node.target)
        elif isinstance(node, ast.Expr) and last:
            found[last] = " ".join(ast.literal_eval(node.value).split())
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_setting_has_its_docstring_and_plain_words_for_its_type(kind):
    entries = {entry.name: entry for entry in entries_of(kind, defaults_of(kind))}
    assert entries.keys() | sections_of(kind).keys() == {field.name for field in fields(kind)}
    written = docstrings(kind)
    for name, entry in entries.items():
        assert entry.meaning and entry.meaning == written.get(name, entry.meaning)
        assert not any(
            word in f"{entry.type} {entry.limits}" for word in ("FieldInfo", "Annotated", "None", "[")
        ) or entry.type.startswith("[")


def entry(kind, name):
    return next(each for each in entries_of(kind, defaults_of(kind)) if each.name == name)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (StudentConfig, "temperature", ("number", "> 0", "", "3.0", "3 (section 4.4)")),
        (SynthesisConfig, "batch_size", ("integer", ">= 1", "images", "256", "256")),
        (SynthesisConfig, "iterations", ("integer", ">= 1", "", "2000", "2,000")),
        (SynthesisConfig, "betas", ("[number, number]", ">= 0, < 1", "", "[0.9, 0.999]", "")),
        (CoefficientsConfig, "tv", ("number or auto", ">= 0", "", "2.5e-05", "2.5e-5 (CIFAR-10)")),
        (CoefficientsConfig, "classification", ("number", ">= 0", "", "1.0", "1")),
        (TransferConfig, "epochs", ("integer", ">= 1", "", "90", "90, or 250 with MixUp (section 4.4)")),
        (TransferConfig, "stall_timeout_s", ("number", "> 0", "s", "1800.0", "")),
        (TransferConfig, "feed", ("auto|memory|stream", "", "", "auto", "")),
    ],
)
def test_an_entry_has_type_range_unit_default_and_the_papers_value(kind, name, expected):
    found = entry(kind, name)
    assert (found.type, found.limits, found.unit, found.default, found.paper) == expected


def test_a_meaning_with_colons_is_whole():
    assert entry(StudentConfig, "temperature").meaning == "T of eq. 1 (the paper's section 4.4: 3)"
