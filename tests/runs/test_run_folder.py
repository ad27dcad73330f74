"""A run folder is begun by one process, and what is read of it later is of the right types."""

import errno
import fcntl
import json
import os
import threading
import time
from pathlib import Path

import pytest

from raydream.cli import Command, parse
from raydream.config import SynthesizeConfig
from raydream.errors import DocumentError, InputError, RaydreamError
from raydream.runs import lease, run_folder
from raydream.runs.run_folder import NOT_EXCLUSIVE
from raydream.runs.summaries import DistillSummary
from raydream.store.folders import LocalFolder, folder_at
from tests.stores import new_bucket


def begun_together(path: Path | str, count: int) -> list[run_folder.RunFolder]:
    """The folders that so many threads get which begin a run in one at the same moment."""
    start, begun = threading.Barrier(count), []

    def begin() -> None:
        start.wait()
        try:
            begun.append(run_folder.begin(str(path), {"experiment": "x", "pad": "y" * 10_000}, "distill"))
        except InputError as error:
            assert "new or empty" in str(error)

    threads = [threading.Thread(target=begin) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return begun


@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "an empty one"])
def test_of_those_that_begin_at_the_same_moment_one_succeeds(there, tmp_path):
    for turn in range(10):
        path = tmp_path / str(turn)
        if there:
            path.mkdir()
        begun = begun_together(path, 3)
        assert len(begun) == 1
        assert json.loads((path / "run.json").read_text())["run"] == begun[0].run
        with run_folder.held(begun[0]):
            pass


def test_of_those_that_begin_in_a_store_at_the_same_moment_one_succeeds(bucket):
    for turn in range(3):
        begun = begun_together(f"{bucket}/{turn}", 2)
        assert len(begun) == 1
        assert json.loads(begun[0].place.read("run.json"))["run"] == begun[0].run
        with run_folder.held(begun[0]):
            pass


@pytest.mark.parametrize(("kind", "warns"), [("bucket", False), ("ignoring", True), ("refusing", True)])
def test_a_run_in_a_store_without_conditional_writes_says_so(bucket, kind, warns, caplog):
    where = f"{new_bucket(kind)}/run"
    with run_folder.held(run_folder.begin(where, {"experiment": "x"}, "distill")):
        said = [record.getMessage() for record in caplog.records]
    assert said == ([f"{where} {NOT_EXCLUSIVE.removeprefix('%s ')}"] if warns else [])


def test_what_a_process_that_was_killed_in_beginning_leaves_in_a_store_is_no_hindrance(bucket, monkeypatch):
    monkeypatch.setattr(lease, "LAPSE_S", 0.5)
    monkeypatch.setattr(lease, "LOOK_S", 0.1)
    place = folder_at(f"{bucket}/run")
    for name in (".begin.aside", "config.yaml", ".lease-1"):
        place.write(name, b"killed 0")
    run_folder.begin(str(place), {"experiment": "x"}, "distill")
    assert run_folder.read_config(place) == {"experiment": "x"}


def test_jobs_that_start_in_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "20260101-120000")  # type: ignore[attr-defined]
    options = ["--experiment", "x"]
    commands = [parse(SynthesizeConfig, "", options) for _ in range(3)]
    assert len({command.run_dir for command in commands}) == 1
    folders = [command.folder("distill") for command in commands]
    names = ["20260101-120000", "20260101-120000-2", "20260101-120000-3"]
    assert [folder.path.name for folder in folders] == names
    assert [command.run_dir for command in commands] == [f"runs/x/{name}" for name in names]
    assert parse(SynthesizeConfig, "", options).run_dir == "runs/x/20260101-120000-4"


def test_a_folder_that_was_named_gets_no_suffix(tmp_path):
    command = Command(SynthesizeConfig(), str(tmp_path / "run"), None)
    assert run_folder.begin(command.run_dir, {"experiment": "x"}, "distill")
    with pytest.raises(InputError, match="new or empty"):
        command.folder("distill")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_what_a_process_that_was_killed_in_beginning_leaves_is_no_hindrance(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".writable-x").mkdir()
    assert run_folder.begin(str(tmp_path), {"experiment": "x"}, "distill").run.startswith("x-")


def test_a_lock_leads_nowhere(tmp_path):
    (tmp_path / "precious").write_text("kept")
    folder = run_folder.begin(str(tmp_path / "run"), {"experiment": "x"}, "distill")
    (folder.path / ".lock").unlink()
    (folder.path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), run_folder.held(folder):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_marker_tells_what_was_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_folder.begin("run", {"experiment": "x"}, "distill")
    run_folder.check_teacher(folder, "f00d")
    marker = run_folder.read_marker(folder.place)
    assert (marker.run, marker.teacher, marker.working_directory) == (folder.run, "f00d", str(tmp_path))


MARKERS = [
    ("null", "describes no run"),
    ('{"format": 2, "run": "x"}', "format 2, not 1"),
    ('{"format": 1}', "other types"),
    ('{"format": 1, "run": 3}', "other types"),
    ('{"format": 1, "run": "x", "begun": "today"}', "other types"),
    ('{"format": 1, "run": "x", "begun": -1}', "1970 to 2242"),
    ('{"format": 1, "run": "x", "begun": 1e10}', "1970 to 2242"),
    ('{"format": 1, "run": "x", "teacher": null}', "other types"),
]


@pytest.mark.parametrize(("content", "says"), MARKERS)
def test_a_marker_of_other_types_is_damaged(content, says, tmp_path):
    (tmp_path / "run.json").write_text(content)
    (tmp_path / "config.yaml").write_text("experiment: x")
    with pytest.raises(DocumentError, match=says):
        run_folder.read_marker(LocalFolder(tmp_path))
    with pytest.raises(InputError, match=says):
        run_folder.resume(str(tmp_path))


def test_a_marker_without_what_version_01_did_not_note_is_whole(tmp_path):
    (tmp_path / "run.json").write_text('{"format": 1, "run": "x"}')
    assert run_folder.read_marker(LocalFolder(tmp_path)) == run_folder.Marker("x", 0.0, "", "")


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_a_damaged_summary_is_one_sentence(content, tmp_path):
    folder = run_folder.begin(str(tmp_path), {"experiment": "x"}, "distill")
    assert run_folder.read_summary(folder, DistillSummary) is None
    folder.summary.write_text(content)
    with pytest.raises(RaydreamError, match="delete it and resume"):
        run_folder.read_summary(folder, DistillSummary)


def test_who_waited_for_a_run_in_a_store_has_what_its_last_process_wrote(bucket):
    first = run_folder.begin(f"{bucket}/run", {"experiment": "x"}, "distill")
    waiting = run_folder.resume(f"{bucket}/run")[0]
    with run_folder.held(first):
        first.journal.write_text("written in the end")
    with run_folder.held(waiting):
        assert waiting.journal.read_text() == "written in the end"


def test_who_has_lost_a_run_in_a_store_writes_nothing_more(bucket, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    folder = run_folder.begin(f"{bucket}/run", {"experiment": "x"}, "distill")
    with pytest.raises(RaydreamError, match="another process has taken over"), run_folder.held(folder):
        folder.journal.write_text("of the first")
        folder.place.write(f"{lease.NAME}9", b"another 0")
        folder.place.write(folder.journal.name, b"of the other")
        for _ in range(300):
            time.sleep(0.1)
    assert folder.place.read(folder.journal.name) == b"of the other"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK], ids=errno.errorcode.get)
def test_storage_that_has_no_locks_says_so(number, tmp_path, monkeypatch):
    def refuses(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuses)
    with pytest.raises(InputError, match="may be written; writing failed") as refused:
        run_folder.begin(str(tmp_path / "run"), {"experiment": "x"}, "distill")
    assert not isinstance(refused.value, run_folder.TakenError)
