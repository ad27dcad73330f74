"""The runs in a folder: how they stand, what refers to what, and what may be deleted."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from raydream.config import DistillConfig, SynthesizeConfig, TeacherConfig, TransferConfig
from raydream.config.conversion import as_dict
from raydream.errors import InputError
from raydream.runs import run_folder
from raydream.runs.run_list import ListedRun, delete, find_runs, prunable, read_run, references, short_names
from raydream.store.atomic import write_json
from raydream.store.folders import LocalFolder, RemoteFolder
from raydream.store.shards import ShardStore
from tests.calls import ROOT, call
from tests.summaries import example
from tests.tiny import finished_images

DAY = 86_400.0


def make(path: Path, config: Any = None, done: bool = True, job: str = "distill") -> Path:
    folder = run_folder.begin(str(path), as_dict(config or DistillConfig()), job)
    if done:
        write_json(folder.summary, example("distill", student_accuracy=0.5))
    return path


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """first (done), second (not done), third (being worked on) and what is no run, three folders deep."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/a/empty").mkdir(parents=True)
    make(Path("runs/a/first"))
    make(Path("runs/a/second"), SynthesizeConfig(), done=False, job="synthesize")
    (tmp_path / "runs/b").mkdir()
    make(Path("runs/b/third"), done=False)
    (tmp_path / "runs/b/.begun.aside").mkdir()
    with run_folder.held(run_folder.resume("runs/b/third")[0]):
        yield tmp_path / "runs"


def test_all_runs_are_found_with_their_states(runs):
    found = find_runs("runs")
    assert [(run.where, run.job, run.state) for run in found] == [
        ("runs/a/first", "distill", "done"),
        ("runs/a/second", "synthesize", "unfinished"),
        ("runs/b/third", "distill", "running"),
    ]
    assert str(found[0].figure) == "student accuracy 50.0 %" and found[1].figure is None
    for run in found:
        files = [file for file in Path(run.where).rglob("*") if file.is_file()]
        assert run.bytes == sum(len(file.read_bytes()) for file in files) > 0
        assert abs(run.begun - time.time()) < 3600
    assert [run.where for run in find_runs("runs/a/first")] == ["runs/a/first"]
    assert find_runs("nowhere") == []


def test_looking_takes_no_lock(runs):
    read_run("runs/a/second", "RUN")
    with run_folder.held(run_folder.resume("runs/a/second")[0]):
        assert read_run("runs/a/second", "RUN").state == "running"
        with (
            pytest.raises(InputError, match="no other process is using"),
            run_folder.held(run_folder.resume("runs/a/second")[0]),
        ):
            pass
    assert read_run("runs/a/second", "RUN").state == "unfinished"


def test_runs_in_a_store_are_listed_too(runs):
    store = RemoteFolder("test", fs.LocalFileSystem(), str(runs / "a"))
    found = find_runs(store)
    assert [(run.where, run.state, run.bytes) for run in found] == [
        (f"test://{runs}/a/first", "done", None),
        (f"test://{runs}/a/second", "unfinished", None),
    ]
    with pytest.raises(InputError, match="this machine"):
        delete(found[1], store)


@pytest.mark.parametrize("damage", ["run.json", "config.yaml", "summary.json"])
def test_what_cannot_be_read_is_said_and_never_pruned(damage, runs):
    Path("runs/a/first", damage).write_text("{")
    run = find_runs("runs/a/first")[0]
    assert run.state == "damaged"
    going, kept = prunable([run], LocalFolder(Path("runs")), time.time() + 1e9, unfinished=False, older_than_days=1)
    assert not going and kept == [(run, "it is damaged")]


def listed(name: str, state: str, days: float, **config: Any) -> ListedRun:
    place, summary = LocalFolder(Path("/runs", name)), {} if state == "done" else None
    return ListedRun(place, name, -days * DAY, "", config, summary, state)


RUNS = [
    listed("old", "done", 30),
    listed("new", "done", 1),
    listed("stopped", "unfinished", 30),
    listed("stopped_today", "unfinished", 0.1),
    listed("at_work", "running", 30),
    listed("named", "done", 30),
    listed("student", "done", 1, teacher={"network": "run:/runs/named"}),
]
ASKED = [
    ({"unfinished": True, "older_than_days": None}, ["stopped", "stopped_today"], ["at_work"]),
    ({"unfinished": False, "older_than_days": 7}, ["old", "stopped"], ["at_work", "named"]),
    ({"unfinished": False, "older_than_days": 30.5}, [], []),
    ({"unfinished": True, "older_than_days": 7}, ["stopped"], ["at_work"]),
    ({"unfinished": False, "older_than_days": 7, "referred": True}, ["old", "stopped", "named"], ["at_work"]),
]


@pytest.mark.parametrize(("asked", "going", "kept"), ASKED)
def test_what_may_be_deleted(asked, going, kept):
    found = prunable(RUNS, LocalFolder(Path("/runs")), 0.0, **asked)
    assert [run.run for run in found[0]] == going and [run.run for run, _ in found[1]] == kept


REFERENCES = {
    "a network": {"teacher": {"network": "run:/runs/named"}},
    "its weights": {"teacher": {"checkpoint": "/runs/named/student.safetensors"}},
    "its images": {"images": "/runs/named/"},
    "in a list": {"compare": ["/runs/other", "/runs/named"]},
    "in a list of networks": {"verifiers": [{"checkpoint": "/runs/x/../named/teacher.safetensors"}]},
}


@pytest.mark.parametrize("how", REFERENCES)
def test_what_refers_to_a_run(how):
    runs = [listed("named", "done", 1), listed("other_one", "done", 1, **REFERENCES[how])]
    assert references(runs) == {"/runs/named": ["/runs/other_one"]}


def test_what_does_not():
    of_its_own = listed("named", "done", 1, images="/runs/named", teacher={"checkpoint": "/runs/named_too/x"})
    assert references([of_its_own, listed("other", "done", 1, experiment="named", seed=3)]) == {}


def test_settings_as_they_are_kept_refer(runs):
    make(Path("runs/c"), TransferConfig(images="runs/a/first", teacher=TeacherConfig()))
    assert references(find_runs("runs")) == {"runs/a/first": ["runs/c"]}


def test_a_deleted_run_is_gone_and_one_at_work_stays(runs):
    first, second, third = find_runs("runs")
    root = LocalFolder(runs)
    delete(second, root)
    assert sorted(each.name for each in Path("runs/a").iterdir()) == ["empty", "first"]
    with pytest.raises(InputError, match="no other process is using"):
        delete(third, root)
    assert [run.where for run in find_runs("runs")] == [first.where, third.where]


# --- jobs/runs.py -----------------------------------------------------------------------------------------------


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return call("runs", *arguments, folder=Path.cwd())


def test_pruning_shows_first_and_deletes_when_told(runs):
    shown = tool("prune", "--unfinished")
    assert shown.returncode == 0 and shown.stderr == ""
    assert "kept: runs/b/third, as it is running" in shown.stdout and "would be deleted; --yes does it" in shown.stdout
    assert "runs/a/second" in shown.stdout and "runs/a/first" not in shown.stdout
    assert Path("runs/a/second").exists()
    assert "1 runs" in tool("prune", "--unfinished", "--yes").stdout
    assert not Path("runs/a/second").exists() and Path("runs/a/first").exists() and Path("runs/b/third").exists()
    told = tool("list").stdout.splitlines()
    assert told[0].split() == ["run", "job", "state", "begun", "main", "figure", "size"] and len(told) == 4


BAD = [
    (["prune"], "choose the runs to delete"),
    (["prune", "--older-than", "-1"], "--older-than"),
    (["prune", "--older", "1"], "--older"),
    (["show", "runs"], "run.json"),
    (["list", "nosuch://x"], "FOLDER"),
    ([], "list | show | verify | prune"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_bad_input(arguments, words, runs):
    wrong = tool(*arguments)
    assert wrong.returncode == 2 and words in wrong.stderr and "Traceback" not in wrong.stderr
    assert Path("runs/a/second").exists()


def test_all_images_of_a_run_are_verified_where_that_is_asked_for(tmp_path):
    run = finished_images(tmp_path / "run")
    whole = call("runs", "verify", run)
    assert (whole.returncode, whole.stdout) == (0, "2 shards, all of them whole\n")
    shard = run / "images" / "r0000-b0001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    before = shard.stat()
    shard.write_bytes(content)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    told = call("runs", "verify", run)
    assert told.returncode == 1 and f"the shard {shard} cannot be read" in told.stdout
    remedy = "resume the run to make those again that it still needs"
    assert told.stderr == f"failed: 1 of 2 shards are damaged: {remedy}\n"
    assert ShardStore(run / "images").quarantine_damaged()


def test_the_images_of_a_search_are_verified_too(tmp_path):
    run = finished_images(tmp_path / "run")
    (run / "trials").mkdir()
    (run / "images").rename(run / "trials" / "0000")
    assert call("runs", "verify", run).stdout == "2 shards, all of them whole\n"


def test_a_reader_that_goes_away_ends_it_in_silence(runs):
    shown = tool("show", "runs/a/first").stdout
    assert "student_accuracy" in shown and "settings:" in shown
    make(Path("runs/long"), DistillConfig(teacher=TeacherConfig(arguments={f"a{i}": i for i in range(10_000)})))
    process = subprocess.Popen(
        [sys.executable, ROOT / "jobs/runs.py", "show", "runs/long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait(timeout=120)


NAMES = [
    (["runs/a/1", "runs/a/2"], ["1", "2"]),
    (["runs/a/1", "runs/b/1/"], ["a/1", "b/1"]),
    (["1", "runs/1"], ["1", "runs/1"]),
]


@pytest.mark.parametrize(("given", "names"), NAMES)
def test_names_are_as_short_as_they_can_be(given, names):
    assert short_names(given) == names


def test_a_run_is_not_beside_itself():
    for again in ("a", "a/", "./a", str(Path("a").resolve())):
        with pytest.raises(InputError, match=f"RUN = '{re.escape(again)}'.*each run once"):
            short_names(["a", "b", again])
