"""Text files are UTF-8 wherever a run takes place: nothing is read or written in the encoding of a user's locale."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("platform", "jobs", "tuning", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.py")
    if "_build" not in path.parts
)


def without_encoding(source: str) -> Iterator[int]:
    """Lines of calls that read or write text, and do not say in which encoding."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
        if name in ("read_text", "write_text") or (name == "open" and is_text(call)):
            yield call.lineno


def is_text(call: ast.Call) -> bool:
    """Whether a call of `open`, or of a path's own, opens a file as text; other objects' `open` takes no mode."""
    given = [word.value for word in call.keywords if word.arg == "mode"] + call.args[isinstance(call.func, ast.Name) :]
    if not given:
        return isinstance(call.func, ast.Name) or not call.args
    mode = given[0].value if isinstance(given[0], ast.Constant) else None
    return isinstance(mode, str) and set(mode) <= set("rwaxt+")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_text_has_an_encoding(path: Path) -> None:
    assert not list(without_encoding(path.read_text(encoding="utf-8"))), (
        f'say encoding="utf-8" in these lines of {path}'
    )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.read_text()", True),
        ("path.write_text('x')", True),
        ("path.write_text('x', encoding='utf-8')", False),
        ("open('x')", True),
        ("open('x', 'rb')", False),
        ("open('x', mode='a')", True),
        ("path.open()", True),
        ("path.open('w')", True),
        ("path.open('wb')", False),
        ("path.open('w', encoding='utf-8')", False),
        ("folder.open(name)", False),
        ("folder.open('name.npy')", False),
    ],
)
def test_calls_that_open_text_are_found(source: str, found: bool) -> None:
    assert bool(list(without_encoding(source))) == found
