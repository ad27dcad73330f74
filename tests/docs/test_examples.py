"""What README and docs tell people to type: blocks of Python run, and command lines are ones that jobs take."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from raydream.cli import parse
from raydream.commands import NAMES, imported
from raydream.errors import InputError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKED = re.compile(r"<!-- run -->\n```python\n(.*?)```", re.DOTALL)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
NAMED_FILE = re.compile(r"```yaml\n# (\S+\.yaml)\n(.*?)```", re.DOTALL)
JOB = re.compile(r"(?:jobs|tuning)/(\w+)\.py$")
MADE_BY_RUNS = re.compile(r"runs/\S+/best\.yaml")
"""configurations that only a run writes: an experiment's, like any other"""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(text: str) -> list[list[str]]:
    """The words of each command line in a page, from the command's name on."""
    found = []
    for block in SHELL.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            at = next((index for index, word in enumerate(words) if word == "raydream" or JOB.fullmatch(word)), None)
            if at is not None and words[at] == "raydream":
                found.append(words[at + 1 :])
            elif at is not None:
                found.append([JOB.sub(r"\1", words[at]), *words[at + 1 :]])
    return found


COMMANDS = {f"{name(page)}: {shlex.join(words)}": words for page in PAGES for words in commands(page.read_text())}


@pytest.fixture
def in_a_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's configurations and those that the pages tell one to write."""
    for folder in ("configs", "tuning", "jobs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for page in PAGES:
        for file, content in NAMED_FILE.findall(page.read_text()):
            (tmp_path / file).write_text(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(words: list[str]) -> None:
    """See that a command takes its options; raises InputError."""
    command, *options = words
    if command.startswith("--"):
        return
    entry = NAMES[command]
    if not entry.config or "--help" in options:  # one that has a command line of its own, which its own tests check
        return
    options = ["configs/digits.yaml" if MADE_BY_RUNS.fullmatch(word) else word for word in options]
    if "--resume" in options:  # of a run that is not there
        at = options.index("--resume")
        del options[at : at + 2]
    kind: Any = imported(entry.config)
    with pytest.raises(SystemExit) as ended:
        parse(kind, command, [*options, "--print_config"])
    assert ended.value.code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_job_takes_each_command_line(command, in_a_users_folder, capsys):
    check(COMMANDS[command])


@pytest.mark.parametrize(
    "words",
    [
        ["distill", "--config", "configs/none.yaml"],
        ["distill", "--config", "configs/digits.yaml", "--student.netwrok", "digits"],
        ["transfer", "--epochs", "many"],
        ["synthesize", "--rounds.count", "3"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_is_wrong_is_found(words, in_a_users_folder):
    with pytest.raises(InputError):
        check(words)


def test_each_command_has_a_page_that_shows_its_command_line():
    shown = {words[0] for page in PAGES for words in commands(page.read_text())}
    assert {entry.name for entry in NAMES.values()} <= shown


# README's only block is run, and its figures compared, by test_readme.py.
RUNNABLE = [page for page in PAGES if page.name != "README.md" and MARKED.search(page.read_text())]
SLOW = {"docs/tutorial.md": pytest.mark.long, "docs/api/diagnose.md": pytest.mark.long}


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=name(page), marks=SLOW.get(name(page), ())) for page in RUNNABLE]
)
def test_marked_blocks_of_a_page_run_in_turn(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}
    for block in MARKED.findall(page.read_text()):
        exec(compile(block, name(page), "exec"), seen)


def test_the_tutorial_and_the_api_are_among_them():
    assert {"docs/tutorial.md", "docs/api/synthesize.md"} <= {name(page) for page in RUNNABLE}
