"""What a page shows below a command is what that command printed, as `docs/outputs/make.sh` recorded it."""

import re
import shlex

import pytest

from raydream.commands import NAMES
from tests.calls import ROOT
from tests.docs.test_examples import PAGES, commands, name

OUTPUTS = ROOT / "docs" / "outputs"
SHOWN = re.compile(r"```{literalinclude} (?:\.\./)?outputs/(\w+)\.txt\n:language: text\n```")
RECORDED = {
    output: shlex.split(command)
    for output, command in re.findall(
        r"^(?:boxed|whole) (\w+) raydream (.*)$", (OUTPUTS / "make.sh").read_text(), re.MULTILINE
    )
}
"""by the name of its file: the command whose output was recorded"""
MACHINE = "machine"
"""the file that names the machine, the versions and the day of all others"""


def of_a_command(words: list[str]) -> list[str]:
    """The words of a command line, with those that its name stands for: `demo` is `distill --config digits`."""
    entry = NAMES[words[0]]
    return [entry.target, *entry.given, *words[1:]]


def shown_in(text: str) -> dict[str, list[list[str]]]:
    """By the name of each output that a page shows: the command lines of the block above it."""
    found = {}
    for output in SHOWN.finditer(text):
        above = text[: output.start()]
        found[output[1]] = commands(above[above.rfind("```sh\n") :])
    return found


PLACES = [(page, output) for page in PAGES for output in shown_in(page.read_text()) if output in RECORDED]


@pytest.mark.parametrize(("page", "output"), PLACES, ids=[f"{name(page)}: {output}" for page, output in PLACES])
def test_an_output_stands_below_its_command(page, output):
    """Where this fails after a change of a command: `docs/outputs/make.sh FOLDER`."""
    above = shown_in(page.read_text())[output]
    assert of_a_command(RECORDED[output]) in [of_a_command(words) for words in above]


def test_each_output_is_recorded_and_shown():
    files = {path.stem for path in OUTPUTS.glob("*.txt")}
    shown = {output for page in PAGES for output in shown_in(page.read_text())}
    assert shown >= files >= {*RECORDED, MACHINE}


def test_no_output_names_a_folder_of_the_machine():
    for path in OUTPUTS.glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert text.strip() and not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users)\b", text), path.name


def test_guides_of_jobs_show_what_their_commands_print():
    jobs = [
        "synthesize",
        "distill",
        "transfer",
        "prune",
        "quantize",
        "continual",
        "train_teacher",
        "evaluate",
        "search",
    ]
    guides = [f"docs/how-to/{guide}.md" for guide in [*jobs, "runs", "check"]]
    pages = [ROOT / page for page in [*guides, "docs/quickstart.md", "docs/doctor.md"]]
    assert [name(page) for page in pages if not shown_in(page.read_text())] == []
