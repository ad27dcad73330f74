"""The settings reference: a page for each section, and the text of each setting as in the code."""

import inspect
import re
import sys
from pathlib import Path

import pytest

from raydream.cli.entries import entries_of
from raydream.cli.settings import defaults_of
from raydream.commands import COMMANDS, imported

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs" / "_ext"))
pytest.importorskip("sphinx")
import settings  # type: ignore[import-not-found]  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")

PAGES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "reference").rglob("*.md"))}
SECTIONS = settings.sections()


def named(directive: str) -> list[str]:
    """The arguments of a directive on all pages."""
    return [found for text in PAGES.values() for found in re.findall(rf"```{{{directive}}} (\S+)\n", text)]


def test_each_section_and_each_command_is_on_a_page_once():
    assert sorted(named("settings")) == sorted(SECTIONS)
    assert named("command") == [entry.name for entry in COMMANDS]


def test_sections_of_lists_are_known_and_commands_keep_their_own_defaults():
    kind, by_command = SECTIONS["synthesis.stages"]
    assert kind.__name__ == "StageConfig" and "distill" in by_command
    assert SECTIONS["student"][1]["prune"]["learning_rate"] == 0.02


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, str]:
    """The text of each page as Sphinx renders it, of this reference alone."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for path, text in PAGES.items():
        (source / path.name).write_text("\n".join(re.findall(r"```\{.*?\n```\n|^# .*$", text, re.M | re.S)), "utf-8")
    with docutils_namespace():
        parts = {
            "extensions": ["myst_parser", "settings"],
            "default_role": "code",
            "suppress_warnings": ["myst", "toc"],
        }
        parts["smartquotes"] = False
        app = Sphinx(source, None, out, out / "trees", "dummy", parts, status=None, warning=None)
        app.build()
        return {path.stem: app.env.get_doctree(path.stem).astext() for path in PAGES}


def plain(text: str) -> str:
    return "".join(text.replace("`", "").split()).lower()


@pytest.mark.parametrize("name", SECTIONS)
def test_a_page_has_the_docstring_of_each_setting(built, name):
    text = plain(built[name.partition(".")[0]])
    for entry in entries_of(SECTIONS[name][0], defaults_of(SECTIONS[name][0])):
        assert plain(f"{name}.{entry.name}") in text and plain(entry.meaning) in text


@pytest.mark.parametrize("entry", [each for each in COMMANDS if each.config and not each.given], ids=lambda e: e.name)
def test_the_page_of_commands_has_the_settings_outside_sections(built, entry):
    text, kind = plain(built["commands"]), imported(entry.config)
    for each in entries_of(kind, defaults_of(kind)):
        assert plain(f"{entry.name}.{each.name}") in text and plain(each.meaning) in text


def test_no_page_has_pydantics_words(built):
    for text in built.values():
        assert not re.search(r"FieldInfo|Annotated|NoneType|MISSING|<factory>", text)


def test_a_sentence_begins_with_a_capital_unless_it_begins_with_a_value():
    assert settings._sentence("number of images") == "Number of images."
    assert settings._sentence("balanced: all in turn") == "balanced: all in turn."
    assert inspect.cleandoc(settings._sentence("`data` is read.")) == "`data` is read."
