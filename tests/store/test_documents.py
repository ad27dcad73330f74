"""JSON and YAML are read within bounds: each bound beside the last value that it lets through."""

import math
import os
from pathlib import Path

import pytest

from raydream.errors import DocumentError
from raydream.store import documents
from raydream.store.documents import is_moment, parse_json, parse_yaml, read_json, read_yaml
from raydream.store.folders import LocalFolder

WHOLE = [
    ("json", '{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
    ("yaml", "a: [1, 2.5, null, true, x]", {"a": [1, 2.5, None, True, "x"]}),
    ("yaml", "a: &a [1]\nb: *a", {"a": [1], "b": [1]}),
    ("yaml", "", None),
    ("json", str(2**64 - 1), 2**64 - 1),
    ("yaml", str(-(2**64) + 1), -(2**64) + 1),
    ("json", "[" * 50 + "]" * 50, None),
    ("yaml", "[" * 50 + "]" * 50, None),
    ("json", "[" + "1," * 200_000 + "1]", None),
]
DAMAGED = [
    ("json", "", "cannot be read"),
    ("json", b"\xff", "cannot be read"),
    ("yaml", b"\xff", "cannot be read"),
    ("yaml", "a: [", "cannot be read"),
    ("yaml", "!!python/object/apply:os.getcwd []", "cannot be read"),
    ("yaml", "!!timestamp x", "cannot be read"),
    ("yaml", "!!bool x", "cannot be read"),
    ("yaml", '!!int ""', "cannot be read"),
    ("yaml", "1:" * 500 + "1.0", "cannot be read"),
    ("json", "9" * 5_000, "cannot be read"),
    ("json", str(2**64), "more than 64 bits"),
    ("yaml", "0x1" + "0" * 10_000, "more than 64 bits"),
    ("json", "[" * 51 + "]" * 51, "nested more than 50 deep"),
    ("json", "[" * 100_000, "nested more than 50 deep"),
    ("yaml", "{a: " * 10_000, "nested more than 50 deep"),
    ("yaml", "a: &a [*a]", "nested more than 50 deep|more than 100,000 values"),
    ("yaml", "2024-01-01", "holds a date"),
    ("yaml", "!!set {a}", "holds a set"),
    ("yaml", "!!binary aGk=", "holds a bytes"),
    ("yaml", "a" * (2**19 + 1), "larger than 524,288 bytes"),
    ("json", b" " * (2**25 + 1), "larger than 33,554,432 bytes"),
]
PARSERS = {"json": parse_json, "yaml": parse_yaml}


@pytest.mark.parametrize(("kind", "content", "value"), WHOLE, ids=range(len(WHOLE)))
def test_what_is_within_bounds_is_read(kind, content, value):
    found = PARSERS[kind](content, "x")
    assert value is None or found == value


@pytest.mark.parametrize(("kind", "content", "says"), DAMAGED, ids=range(len(DAMAGED)))
def test_what_is_not_is_refused_in_one_line(kind, content, says):
    with pytest.raises(DocumentError, match=f"^some.file .*({says})") as refused:
        PARSERS[kind](content, "some.file")
    assert "\n" not in str(refused.value)


def test_values_are_counted_with_aliases_followed(monkeypatch):
    monkeypatch.setattr(documents, "MOST_VALUES", 11)
    assert parse_yaml("a: &a [1, 1]\nb: *a", "x") == {"a": [1, 1], "b": [1, 1]}  # the whole, keys, lists, numbers: 9
    for content in ("a: &a [1, 1, 1]\nb: *a\nc: 1", "a: &a [1, 1]\nb: &b [*a, *a]\nc: *b"):
        with pytest.raises(DocumentError, match="more than 11 values"):
            parse_yaml(content, "x")


def test_no_more_of_a_file_is_read_than_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MOST_JSON_BYTES", 4)
    with (tmp_path / "sparse.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DocumentError, match="larger than 4 bytes"):
        read_json(LocalFolder(tmp_path), "sparse.json")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "zero"):
        with pytest.raises(OSError, match="no regular file"):
            read_yaml(LocalFolder(tmp_path), name)
    with pytest.raises(FileNotFoundError):
        read_json(LocalFolder(tmp_path), "nothing")


def test_files_are_found_whatever_their_names_are(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"\xff\x1b")
    folder.mkdir()
    (folder / "a.json").write_text("3")
    assert read_json(LocalFolder(folder), "a.json") == 3


def test_a_moment_is_a_number_of_a_year_that_dates_know():
    assert all(map(is_moment, (0, 0.5, 1.8e9, 2**33 - 1)))
    assert not any(map(is_moment, (-1, 2**33, math.inf, math.nan, 1e300, True, None, "1", [1])))
