import json
from pathlib import Path

import pytest
import yaml

from raydream.storage import ASIDE, remove_leftovers, write_aside, write_json, write_yaml


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_is_there_and_nothing_else(tmp_path):
    write_aside(tmp_path / "a.txt", lambda aside: aside.write_text("new"))
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "new"


def test_writing_again_replaces_the_file(tmp_path):
    for text in ("old, and longer", "new"):
        write_aside(tmp_path / "a.txt", lambda aside, text=text: aside.write_text(text))
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "new"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def write(aside: Path) -> None:
        with aside.open("w") as file:
            file.write("ne")
            file.flush()
            seen.append((path.read_text(), aside.parent, aside.name))
            file.write("w")

    write_aside(path, write)
    ((text, parent, name),) = seen
    assert text == "old" and path.read_text() == "new"
    assert parent == tmp_path and name.startswith(".") and name.endswith(ASIDE)  # one disk; no reader's glob finds it


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("bad")])
@pytest.mark.parametrize("old", ["old", None])
def test_a_write_that_fails_midway_leaves_all_as_it_was(tmp_path, error, old):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)

    def write(aside: Path) -> None:
        aside.write_text("hal")
        raise error

    with pytest.raises(type(error)):
        write_aside(path, write)
    assert names(tmp_path) == ([] if old is None else ["a.txt"])
    assert old is None or path.read_text() == old


def test_a_write_that_fails_before_it_begins_leaves_nothing(tmp_path):
    def write(aside: Path) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        write_aside(tmp_path / "a.txt", write)
    assert names(tmp_path) == []


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(OSError):
        write_aside(tmp_path / "gone" / "a.txt", lambda aside: aside.write_text("x"))


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "a.txt"

    def outer(aside: Path) -> None:
        aside.write_text("outer")
        write_aside(path, lambda other: other.write_text("inner"))
        assert aside.read_text() == "outer"

    write_aside(path, outer)
    assert names(tmp_path) == ["a.txt"] and path.read_text() == "outer"


def test_json_and_yaml_come_back_as_they_were(tmp_path):
    value = {"z": [1, 2.5, None], "a": {"text": "é: yes", "on": True}}
    write_json(tmp_path / "a.json", value)
    write_yaml(tmp_path / "a.yaml", value)
    assert json.loads((tmp_path / "a.json").read_text()) == value
    loaded = yaml.safe_load((tmp_path / "a.yaml").read_text())
    assert loaded == value and list(loaded) == ["z", "a"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text() == "1\n"


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "inner").mkdir()
    leftovers = [tmp_path / f".a.parquet.12345678{ASIDE}", tmp_path / "inner" / f".b{ASIDE}"]
    kept = [tmp_path / "a.parquet", tmp_path / ".hidden", tmp_path / f"no-dot{ASIDE}", tmp_path / "inner" / "b"]
    for path in leftovers + kept:
        path.write_text("x")
    remove_leftovers(tmp_path)
    assert not any(path.exists() for path in leftovers) and all(path.exists() for path in kept)


def test_a_folder_that_a_killed_writer_left_behind_is_deleted_with_all_in_it(tmp_path):
    leftover = tmp_path / f".png{ASIDE}" / "0003"
    leftover.mkdir(parents=True)
    (leftover / f".x{ASIDE}").touch()
    (tmp_path / "kept").touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
