"""Each command of a job in README and docs is one that raydream accepts."""

import re
import shlex
from pathlib import Path

import pytest

from raydream.cli import parse
from raydream.commands import NAMES, imported
from raydream.errors import InputError

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs" / "outputs").glob("*.sh")]
COMMAND = re.compile(r"^raydream ((?:.*\\\n)*.*)$", re.MULTILINE)
FOUND = {
    f"{path.relative_to(ROOT)}: {written[1].splitlines()[0]}": shlex.split(
        written[1].replace("\\\n", " "), comments=True
    )
    for path in sorted(SOURCES)
    if "_build" not in path.parts
    for written in COMMAND.finditer(path.read_text(encoding="utf-8"))
    if (named := NAMES.get(written[1].split()[0])) and named.config
}
OF_THE_READER = re.compile(r"must be (the folder of a run|a file that exists)")
"""what is wrong where a reader's own file, or the run of an earlier command, is not there"""


@pytest.mark.parametrize("words", FOUND.values(), ids=FOUND)
def test_every_command_in_the_docs_is_accepted(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *options = words[: words.index("|")] if "|" in words else words
    if {"--help", "--print-config"} & set(options):
        return
    try:
        parse(imported(NAMES[name].config), "", options)
    except InputError as error:
        assert OF_THE_READER.search(str(error)), error


def test_commands_are_found():
    assert len(FOUND) > 50
