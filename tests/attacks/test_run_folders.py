"""Attacks on `runs list|show|prune` and on reports, by what a run folder holds and by what lies in it.

Each row of a table is one folder that is damaged or hostile, beside one that is whole: the whole one is still listed,
nothing of the other reaches the terminal raw, and `prune` deletes nothing that it promises to keep.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raydream.runs import run_folder
from raydream.runs.run_list import find_runs, mounts_below
from raydream.store.atomic import write_json
from tests.calls import call
from tests.summaries import example

GOOD, BAD = Path("runs/good"), Path("runs/bad")
DISTILL = {"experiment": "x", "rounds": {"count": 1}, "buffer": {}}
"""settings by which a run is one of jobs/distill.py; all of them would take most of this module's time"""
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\rgone\nrow"
"""what sets a terminal's title, clears it, colors it, turns text around, and fakes lines"""
LIMIT_S = 20.0
"""for one command; an attack that is not bounded takes minutes"""


def make(path: Path, done: bool = True, **settings: object) -> Path:
    folder = run_folder.begin(str(path), DISTILL | settings, "distill")
    if done:
        write_json(folder.summary, example("distill", student_accuracy=0.5))
    return path


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    make(GOOD)
    return tmp_path / "runs"


def tool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`jobs/runs.py`, of which every run of this module expects that it answers soon, in plain text."""
    begun = time.monotonic()
    done = call("runs", *arguments, folder=Path.cwd())
    assert time.monotonic() - begun < LIMIT_S
    said = done.stdout + done.stderr
    assert all(letter.isprintable() or letter == "\n" for letter in said) and "Traceback" not in said
    return done


# --- one damaged folder hides no other --------------------------------------------------------------------------


def changed(name: str, **values: object) -> Callable[[Path], None]:
    """The JSON file with other values of some keys."""

    def damage(run: Path) -> None:
        file = run / name
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return damage


def replaced(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def pipe(name: str) -> Callable[[Path], None]:
    """Something that a reader waits for in vain."""

    def damage(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return damage


def folder(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return damage


def bomb(levels: int) -> str:
    """A short YAML document that is 10^levels texts when its aliases are followed."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


DAMAGES: dict[str, Callable[[Path], object]] = {
    **{f"begun {value}": changed("run.json", begun=value) for value in (None, "today", -1, 1e300, True, [1], {})},
    "begun infinity": replaced("run.json", '{"format": 1, "run": "x", "begun": Infinity}'),
    "begun nan": replaced("run.json", '{"format": 1, "run": "x", "begun": NaN}'),
    "begun with 4,000 digits": replaced("run.json", '{"format": 1, "run": "x", "begun": ' + "9" * 4000 + "}"),
    "begun with 10,000 digits": replaced("run.json", '{"format": 1, "run": "x", "begun": ' + "9" * 10_000 + "}"),
    "marker of null": replaced("run.json", "null"),
    "marker of a list": replaced("run.json", "[1]"),
    "marker, deep": replaced("run.json", "[" * 100_000),
    "settings and a summary that are pipes": lambda run: (pipe("config.yaml")(run), pipe("summary.json")(run)),
    "run is no text": changed("run.json", run={"a": 1}),
    "run is a threat": changed("run.json", run=ESCAPES, teacher=ESCAPES),
    "run is half a letter": changed("run.json", run="\ud800", teacher="\udcff"),
    "teacher is no text": changed("run.json", teacher=[1]),
    "summary of null": replaced("summary.json", "null"),
    "summary, deep": replaced("summary.json", '{"a":' * 100_000),
    "summary, deep but whole": replaced("summary.json", '{"a":' * 500 + "1" + "}" * 500),
    "summary with 4,000 digits": replaced("summary.json", '{"student_accuracy": ' + "9" * 4000 + "}"),
    "summary of odd figures": changed("summary.json", student_accuracy=[1], images={}, rounds=None, data=[ESCAPES]),
    "summary of nan": changed("summary.json", student_accuracy=float("nan"), images=float("-inf")),
    "summary of threats": changed("summary.json", **{ESCAPES: ESCAPES, "machine": ESCAPES, ESCAPES + "2": 3.5}),
    "summary of long texts": changed("summary.json", **{"x" * 10**5: 1.0, "machine": "y" * 10**5}),
    "summary in 40 MB": replaced("summary.json", '{"a": "' + "x" * 40_000_000 + '"}'),
    "summary in Latin-1": replaced("summary.json", b'{"data": "\xe4"}'),
    "summary that is a folder": folder("summary.json"),
    "settings of null": replaced("config.yaml", "null"),
    "settings, deep": replaced("config.yaml", "{a: " * 10_000),
    "settings, deep but whole": replaced("config.yaml", "[" * 200 + "]" * 200),
    "settings, a list": replaced("config.yaml", "[a]"),
    "settings, an alias bomb": replaced("config.yaml", bomb(9)),
    "settings that hold themselves": replaced("config.yaml", "teacher: &a {network: *a}"),
    "settings with 4,000 digits": replaced("config.yaml", "seed: " + "9" * 4000),
    "settings of a tagged nothing": replaced("config.yaml", 'seed: !!int ""'),
    "settings of dates and sets": replaced("config.yaml", "experiment: 2024-01-01\nsynthesis: !!set {a}"),
    "settings of a program": replaced("config.yaml", "!!python/object/apply:os.system ['touch owned']"),
    "settings in 10 MB": replaced("config.yaml", "a: b\n" * 2_000_000),
    "settings of odd parts": replaced("config.yaml", "synthesis: text\nrounds: 1\nbuffer: [1]\n3: 4\nnull: x"),
    "settings of threats": replaced(
        "config.yaml", yaml.safe_dump({ESCAPES: ESCAPES, "synthesis": {"method": ESCAPES}})
    ),
    "a search of text": lambda run: (
        replaced("config.yaml", "space: x")(run),
        changed("summary.json", metric=ESCAPES, best_value="much")(run),
    ),
    "a lock that is a folder": folder(".lock"),
    "a lock that is a pipe": pipe(".lock"),
    "a run in its own folder": lambda run: (run / "again").symlink_to("."),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_hides_no_other(damage):
    make(BAD)
    DAMAGES[damage](BAD)
    listed = tool("list")
    assert listed.returncode == 0, listed.stderr
    rows = listed.stdout.splitlines()
    assert [row.split()[:3] for row in rows if row.startswith(str(GOOD))] == [[str(GOOD), "distill", "done"]]
    assert sum(row.startswith(str(BAD)) for row in rows) == 1 and max(map(len, rows)) < 500
    shown = tool("show", BAD)
    assert shown.returncode == 0 and str(BAD) in shown.stdout, shown.stderr
    assert tool("prune", "--older-than", "0").returncode == 0
    page = call("report", GOOD, BAD, "--out", "page.html", folder=Path.cwd())
    assert page.returncode == 0, page.stderr
    assert "student accuracy" in Path("page.html").read_text() and not Path("owned").exists()


@pytest.mark.parametrize("name", ["metrics.parquet", "images/r0000-b0000.parquet", "run.json", "config.yaml"])
def test_a_comparison_names_what_it_leaves_out(name):
    make(BAD)
    (BAD / name).parent.mkdir(exist_ok=True)
    (BAD / name).write_bytes(b"\x1bnoise")
    page = call("report", GOOD, BAD, "--out", "page.html", folder=Path.cwd())
    text = Path("page.html").read_text()
    assert page.returncode == 0 and text.partition("<h2>Left out</h2>")[2].count('<th scope="row">bad</th>') == 1
    assert call("report", GOOD, "--out", "page.html", folder=Path.cwd()).returncode == 0
    assert "<h2>Left out</h2>" not in Path("page.html").read_text()


NAMES = {
    "a byte that is no letter": b"bad\xff",
    "escape sequences": ESCAPES.encode(),
    "mathematics": rb"a$\frac$",
    "markup": b"[bold]x",
    "a leading dash": b"-rf",
    "255 bytes": b"x" * 255,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_an_odd_name_hides_no_other(name):
    bad = BAD.with_name(os.fsdecode(NAMES[name]))
    make(BAD)
    BAD.rename(bad)
    assert {run.place.path.name: run.state for run in find_runs("runs")} == {"good": "done", bad.name: "done"}  # type: ignore[attr-defined]
    assert tool("list").stdout.count("50.0 %") == 2
    assert tool("show", f"./{bad}").returncode == 0
    page = call("report", GOOD, f"./{bad}", "--out", "page.html", folder=Path.cwd())
    assert page.returncode == 0, page.stderr
    pruned = tool("prune", "--older-than", "0", "--yes")
    assert pruned.returncode == 0 and "2 runs" in pruned.stdout and not list(Path("runs").iterdir())


def test_what_cannot_be_looked_into_hides_no_run():
    Path("runs/link").symlink_to("x" * 300)  # of which the system says no more than that its name is too long
    Path("runs/nowhere").symlink_to("nothing")
    assert tool("list").stdout.count("50.0 %") == 1


# --- prune deletes nothing that it promises to keep -------------------------------------------------------------


def prune(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return tool("prune", *options, "--older-than", "0", "--yes")


def test_a_loop_of_links_neither_multiplies_a_run_nor_hides_who_refers_to_it():
    make(Path("runs/user"), teacher={"network": "run:runs/good"})
    Path("runs/a_loop").symlink_to(".")
    assert [run.where for run in find_runs("runs")] == ["runs/good", "runs/user"]
    done = prune()
    assert done.returncode == 0 and GOOD.exists() and "kept: runs/good, as runs/user refers to it" in done.stdout


@pytest.mark.parametrize("link", ["group", "run", "hidden group"])
def test_a_link_that_leads_elsewhere_loses_nothing_there(link, tmp_path):
    make(tmp_path / "elsewhere/other")
    if link == "hidden group":
        Path("runs/link").symlink_to(tmp_path / "hop")
        (tmp_path / "hop").symlink_to(tmp_path / "elsewhere")
    else:
        Path("runs/link").symlink_to(tmp_path / "elsewhere" / ("other" if link == "run" else ""))
    done = prune()
    assert done.returncode == 0 and "outside" in done.stdout
    assert not GOOD.exists() and (tmp_path / "elsewhere/other/config.yaml").exists() and Path("runs/link").is_symlink()
    assert sorted(each.name for each in (tmp_path / "elsewhere").iterdir()) == ["other"]


def test_a_run_that_is_found_by_a_link_is_pruned_by_its_own_path():
    make(Path("runs/z/deep/other"))
    Path("runs/a").symlink_to("z/deep")
    assert [run.where for run in find_runs("runs")] == ["runs/good", "runs/z/deep/other"]
    assert prune().returncode == 0 and not Path("runs/z/deep/other").exists() and Path("runs/a").is_symlink()


def test_a_folder_that_is_itself_a_link_is_pruned_where_it_leads_to(tmp_path):
    (tmp_path / "runs").rename(tmp_path / "disk")
    Path("runs").symlink_to("disk")
    assert prune().returncode == 0 and not Path("disk/good").exists() and Path("runs").is_symlink()


def test_what_links_of_a_run_lead_to_stays(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("kept")
    (GOOD / "link").symlink_to(tmp_path / "precious")
    (GOOD / ".lock").unlink(missing_ok=True)
    (GOOD / ".lock").symlink_to(tmp_path / "precious/file")
    prune()
    assert (tmp_path / "precious/file").read_text() == "kept"


def test_what_has_another_name_elsewhere_stays_there_whole(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "marker").hardlink_to(GOOD / "run.json")  # as the shards of a run that another one has reused
    marker = (tmp_path / "marker").read_text()
    (GOOD / ".lock").unlink(missing_ok=True)
    for name in (".lock", "images.parquet", ".run.json.0.aside"):
        (GOOD / name).hardlink_to(tmp_path / "precious")
    assert prune().returncode == 0 and not GOOD.exists()
    assert (tmp_path / "precious").read_text() == "kept" and (tmp_path / "marker").read_text() == marker


@pytest.mark.parametrize("done", [True, False], ids=["done", "unfinished"])
def test_a_run_that_a_process_uses_is_kept(done):
    make(BAD, done=done)
    with run_folder.held(run_folder.resume(str(BAD))[0]):
        pruned = prune(*([] if done else ["--unfinished"]))
    assert pruned.returncode == 0 and "kept: runs/bad, as it is running" in pruned.stdout
    assert BAD.exists() and not list(Path("runs").glob(".*"))


@pytest.mark.parametrize("done", [True, False], ids=["done", "unfinished"])
def test_a_run_that_a_process_takes_after_it_was_looked_at_is_kept(done, monkeypatch):
    make(BAD, done=done)
    found = find_runs("runs")
    monkeypatch.setattr("raydream.jobs.runs.find_runs", lambda root: found)
    with run_folder.held(run_folder.resume(str(BAD))[0]):
        pruned = prune(*([] if done else ["--unfinished"]))
    assert pruned.returncode == 1 and "no other process is using" in pruned.stderr and BAD.exists()
    assert GOOD.exists() != done  # the other run goes


@pytest.mark.parametrize("place", ["run/inside", "run/a file", "run", "group"])
def test_what_is_mounted_is_left_alone(place, tmp_path, monkeypatch):
    mounted = {"run/inside": GOOD / "images", "run/a file": GOOD / "config.yaml", "run": GOOD}.get(place)
    make(Path("runs/group/other"))
    mounted = (mounted or Path("runs/group")).absolute()
    monkeypatch.setattr(
        "raydream.runs.run_list.MOUNTS", tmp_path / "mountinfo"
    )  # as the kernel tells it, spaces in octal
    line = f"42 27 254:0 /else {str(mounted).replace(' ', chr(92) + '040')} rw,relatime - ext4 /dev/vda rw\n"
    (tmp_path / "mountinfo").write_text(line)
    done = prune()
    assert done.returncode == 0 and "is mounted" in done.stdout
    assert (Path("runs/group/other").exists(), GOOD.exists()) == (place == "group", place != "group")


def test_a_bind_mount_in_a_run_is_not_emptied(tmp_path):
    (tmp_path / "precious dir").mkdir()
    (tmp_path / "precious dir/file").touch()
    (GOOD / "images").mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    if subprocess.run(["mount", "--bind", tmp_path / "precious dir", GOOD / "images"], capture_output=True).returncode:
        pytest.skip("only root may mount")
    try:
        assert mounts_below(GOOD.absolute()) == [str((GOOD / "images").absolute())]
        assert prune().returncode == 0
        assert (tmp_path / "precious dir/file").exists()
    finally:
        for mounted in mounts_below(tmp_path):  # wherever it is by now
            subprocess.run(["umount", mounted], check=True)


def test_a_run_in_which_another_one_lies_is_kept():
    make(GOOD / "experiments/inner", done=False)
    done = prune("--unfinished")
    assert done.returncode == 0 and (GOOD / "experiments/inner").exists()
    done = prune()
    assert "another run lies in it" in done.stdout and GOOD.exists()


SPELLINGS: dict[str, Callable[[Path], dict[str, object]]] = {
    "URL": lambda run: {"images": f"file://{run}/images"},
    "URL of a network": lambda run: {"teacher": {"network": f"run:file://{run}"}},
    "URL with escapes": lambda run: {"images": f"file://{run.parent}/%67ood/images"},
    "URL in a list": lambda run: {"compare": [f"file://{run}/"]},
    "through a link": lambda run: {"images": f"{run.parents[1]}/link/good"},
    "with dots": lambda run: {"images": f"{run.parent}/nothing/../good"},
    "relative": lambda run: {"images": "runs/good"},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_reference_counts_however_it_is_spelled(spelling, runs):
    Path("link").symlink_to("runs")
    make(Path("runs/user"), **SPELLINGS[spelling](runs / "good"))
    assert prune().returncode == 0 and GOOD.exists() and not Path("runs/user").exists()


BEGUN_IN = {
    # (the working directory, what the settings name)
    "the folder above runs": (".", "run:runs/good"),
    "there, with dots": (".", "./runs/good/images"),
    "further up": ("..", "{project}/runs/good"),
    "runs itself": ("runs", "run:good"),
    "beside it": ("other", "../runs/good"),
}


@pytest.mark.parametrize(
    ("begun_in", "noted"),
    [*((each, True) for each in BEGUN_IN), *((each, False) for each in BEGUN_IN if each != "beside it")],
)
def test_a_reference_is_relative_to_where_its_run_was_begun(begun_in, noted, tmp_path, monkeypatch):
    directory, named = BEGUN_IN[begun_in]
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / directory)
    make(tmp_path / "runs/user", images=named.format(project=tmp_path.name))
    if not noted:  # as in runs of version 0.1
        changed("run.json", working_directory="")(tmp_path / "runs/user")
    monkeypatch.chdir("/")
    done = tool("prune", tmp_path / "runs", "--older-than", "0", "--yes")
    assert done.returncode == 0 and (tmp_path / "runs/good").exists()


def test_a_run_that_a_damaged_one_refers_to_is_kept():
    make(BAD, teacher={"network": "run:runs/good"})
    (BAD / "summary.json").write_text("{")
    assert prune().returncode == 0 and GOOD.exists()


def test_one_run_that_cannot_be_deleted_keeps_no_other_from_it(monkeypatch):
    for name in "abc":
        make(Path("runs", name))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, to: rename(Path("/no/such") if path.name == "b" else path, to))
    done = prune()
    assert done.returncode == 1 and "runs/b" in done.stderr and "1 of 4 runs" in done.stderr
    assert [each.name for each in Path("runs").iterdir()] == ["b"] and "3 runs" in done.stdout


def test_a_folder_of_1100_levels_hides_no_other_and_is_named_where_it_cannot_be_deleted():
    make(BAD)
    for level in range(0, 1_100, 100):
        BAD.joinpath(*["a"] * (level + 100)).mkdir(parents=True)
    try:
        assert tool("list").stdout.count("50.0 %") == 2
        done = prune()
        assert done.returncode == 1 and "runs/bad: folders in it are nested" in done.stderr and not GOOD.exists()
    finally:
        subprocess.run(["rm", "-rf", "runs"], check=True)  # pytest, too, cannot


def test_a_run_that_ended_after_it_was_looked_at_is_no_longer_unfinished(monkeypatch):
    make(BAD, done=False)
    (found,) = [run for run in find_runs("runs") if run.state == "unfinished"]
    write_json(BAD / "summary.json", {})
    monkeypatch.setattr("raydream.runs.run_list.read_run", lambda *_: found)
    done = tool("prune", BAD, "--unfinished", "--yes")
    assert done.returncode == 1 and BAD.exists()
