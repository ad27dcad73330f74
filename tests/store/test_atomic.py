import errno
import json
import os
from pathlib import Path

import pytest
import yaml

from raydream.errors import DiskFullError
from raydream.store import atomic as storage
from raydream.store.atomic import (
    TEMPORARY,
    WAITS_S,
    link_or_copy,
    remove_leftovers,
    retry_transient,
    write_atomically,
    write_json,
)
from raydream.store.shards import ShardStore
from raydream.store.yaml_files import write_yaml
from tests.tiny import some_batch


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_is_there_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a.txt", lambda temporary: temporary.write_text("new"))
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "new"


def test_content_is_flushed_to_the_disk_before_the_file_has_its_name_and_the_name_afterwards(tmp_path, monkeypatch):
    path, flushed, flush = tmp_path / "a.txt", [], os.fsync

    def note(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().suffix, path.exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert flushed == [(TEMPORARY, False), ("", True)]


def test_writing_again_replaces_the_file(tmp_path):
    for text in ("old, and longer", "new"):
        write_atomically(tmp_path / "a.txt", lambda temporary, text=text: temporary.write_text(text))
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

    write_atomically(path, write)
    ((text, parent, name),) = seen
    assert text == "old" and path.read_text() == "new"
    assert (
        parent == tmp_path and name.startswith(".") and name.endswith(TEMPORARY)
    )  # one disk; no reader's glob finds it


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
        write_atomically(path, write)
    assert names(tmp_path) == ([] if old is None else ["a.txt"])
    assert old is None or path.read_text() == old


def test_a_write_that_fails_before_it_begins_leaves_nothing(tmp_path):
    def write(aside: Path) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        write_atomically(tmp_path / "a.txt", write)
    assert names(tmp_path) == []


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(OSError):
        write_atomically(tmp_path / "gone" / "a.txt", lambda temporary: temporary.write_text("x"))


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "a.txt"

    def outer(aside: Path) -> None:
        aside.write_text("outer")
        write_atomically(path, lambda other: other.write_text("inner"))
        assert aside.read_text() == "outer"

    write_atomically(path, outer)
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
    leftovers = [tmp_path / f".a.parquet.12345678{TEMPORARY}", tmp_path / "inner" / f".b{TEMPORARY}"]
    kept = [tmp_path / "a.parquet", tmp_path / ".hidden", tmp_path / f"no-dot{TEMPORARY}", tmp_path / "inner" / "b"]
    for path in leftovers + kept:
        path.write_text("x")
    remove_leftovers(tmp_path)
    assert not any(path.exists() for path in leftovers) and all(path.exists() for path in kept)


def test_a_folder_that_a_killed_writer_left_behind_is_deleted_with_all_in_it(tmp_path):
    leftover = tmp_path / f".png{TEMPORARY}" / "0003"
    leftover.mkdir(parents=True)
    (leftover / f".x{TEMPORARY}").touch()
    (tmp_path / "kept").touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


class Failing:
    """Fails so many times with an error number, then succeeds."""

    def __init__(self, times: int, number: int) -> None:
        self.times, self.number, self.calls = times, number, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise OSError(self.number, os.strerror(self.number))
        return "done"


@pytest.fixture
def no_waiting(monkeypatch):
    """The waits that were taken, without taking them."""
    waits = []
    monkeypatch.setattr(storage.time, "sleep", waits.append)  # type: ignore[attr-defined]
    return waits


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN])
@pytest.mark.parametrize("times", [0, 1, len(WAITS_S)])
def test_what_fails_now_and_then_is_tried_again_ever_later(no_waiting, times, number):
    action = Failing(times, number)
    assert retry_transient(action) == "done" and action.calls == times + 1
    assert no_waiting == list(WAITS_S[:times]) == sorted(no_waiting)


def test_what_keeps_failing_is_an_error(no_waiting):
    action = Failing(100, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        retry_transient(action)
    assert action.calls == len(WAITS_S) + 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EROFS])
def test_what_waiting_does_not_mend_is_an_error_at_once(no_waiting, number):
    action = Failing(1, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        retry_transient(action)
    assert action.calls == 1 and no_waiting == []


def test_a_full_disk_is_said_so_and_leaves_what_was_there(small_disk):
    write_json(small_disk / "a.json", 1)
    with pytest.raises(DiskFullError, match=r"no space is left for .*/b: free some"):
        write_atomically(small_disk / "b", lambda temporary: temporary.write_bytes(bytes(300_000)))
    store = ShardStore(small_disk / "images")
    with pytest.raises(DiskFullError, match=r"r0001-b0002\.parquet"):
        store.write(some_batch(count=200, shape=(3, 32, 32)))
    assert names(small_disk) == ["a.json", "images"] and names(small_disk / "images") == []
    store.write(some_batch())
    assert store.committed() == [some_batch().id]


def test_a_link_to_a_file_that_may_only_be_read_is_written(tmp_path):
    """As that of a run which is archived, `chmod -R a-w`, and whose images a new run uses again."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    archived, place = tmp_path / "archived", tmp_path / "place"
    archived.write_text("images")
    archived.chmod(0o444)
    place.mkdir()
    for each in (tmp_path, archived, place):
        os.chown(each, 65534, 65534)
    before = os.getcwd()  # noqa: PTH109
    os.chdir(tmp_path)  # the folders above belong to root
    os.seteuid(65534)
    try:
        write_atomically(Path("place/images"), lambda temporary: link_or_copy(Path("archived"), temporary))
    finally:
        os.seteuid(0)
        os.chdir(before)
    assert (place / "images").read_text() == "images" and (place / "images").samefile(archived)
