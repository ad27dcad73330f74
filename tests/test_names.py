"""The names of the package: one thing a class name, the words of the field, and docstrings that stand alone."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import raydream

ROOT = Path(raydream.__file__).parent
SOURCES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def aliases_of(tree: ast.Module) -> list[str]:
    """The types that a module names, such as `Say = Callable[[str], None]`."""
    return [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id[0].isupper() and not target.id.isupper()
    ]


def test_no_two_classes_have_one_name_nor_a_class_and_another_type() -> None:
    classes, aliases = defaultdict(list), defaultdict(list)
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(path)
        for name in aliases_of(tree):
            aliases[name].append(path)
    twice = {name: places + aliases[name] for name, places in classes.items() if len(places + aliases[name]) > 1}
    assert len(classes) > 300 and not twice


AVOIDED = re.compile(
    r"teller|tells?|told|telling|chronicle|mend|mended|mending|anew|patiently|somebody|nobody|whoever|neighbours?|behaviours?|colours?"
)
"""words in whose place the field has others, and British spellings"""
ASK_AND_TELL = {"search/candidates.py: tell"}
"""Optuna's own names for the two halves of a sampler"""


def words_of(name: str) -> set[str]:
    """The words of a name: of `_TrialReporter` trial and reporter, of `MOST_SHARE` most and share."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def names_defined_in(tree: ast.Module) -> Iterator[str]:
    """The names that a module gives to anything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def test_names_use_the_words_of_the_field() -> None:
    avoided = {
        f"{path}: {name}"
        for path, tree in SOURCES.items()
        for name in names_defined_in(tree)
        if any(AVOIDED.fullmatch(word) for word in words_of(name))
    }
    assert avoided == ASK_AND_TELL


def test_names_are_split_into_words() -> None:
    assert words_of("_TrialReporter") == {"trial", "reporter"} and words_of("MOST_SHARE") == {"most", "share"}
    assert {*names_defined_in(ast.parse("def f(a): self.b = 1\nimport c as d"))} == {"f", "a", "b", "d"}


def test_a_docstring_is_no_end_of_a_sentence_that_the_name_begins() -> None:
    begins = re.compile(r"(What|How|Whether|Where|Which|Who|Why|Tell)\b")
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    found = [
        f"{path}: {getattr(node, 'name', 'module')}"
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, documented)
        and not getattr(node, "name", "").startswith("_")
        and begins.match(ast.get_docstring(node) or "")
    ]
    assert not found
