"""Settings of raydream as pages: the entries that `--help` prints, from the fields of the configuration classes.

    ```{settings} synthesis.coefficients        the settings of a section, without those of its own sections
    ```{command} distill                        a command: usage, examples, its settings outside sections, its sections

A setting is an object `confval` of Sphinx, so a page refers to one as {confval}`synthesis.iterations`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_args

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from raydream.cli.entries import SettingEntry, entries_of, first_line, is_section, sections_of, shown
from raydream.cli.settings import defaults_of
from raydream.commands import COMMANDS, CommandEntry, imported

Found = dict[str, tuple[type, dict[str, dict[str, Any]]]]


def jobs() -> dict[str, type]:
    """Return the configuration classes of all commands that have one; `demo` is `distill`."""
    return {entry.name: imported(entry.config) for entry in COMMANDS if entry.config and entry.name != "demo"}


def sections() -> Found:
    """Return all sections by dotted name: class, and defaults by command."""
    found: Found = {}

    def add(kind: type, name: str, command: str, defaults: dict[str, Any]) -> None:
        found.setdefault(name, (kind, {}))[1][command] = defaults
        for inner, of in _inner(kind).items():
            add(of, f"{name}.{inner}", command, defaults.get(inner) or defaults_of(of))

    for command, kind in jobs().items():
        defaults = defaults_of(kind)
        for name, of in sections_of(kind).items():
            add(of, name, command, defaults[name])
    return found


def _inner(kind: type) -> dict[str, type]:
    """Return the sections of a section, and the class of each list of sections."""
    lists = {each.name: get_args(each.type)[0] for each in fields(kind) if get_args(each.type)}  # type: ignore[arg-type]
    return sections_of(kind) | {name: of for name, of in lists.items() if is_section(of)}


def text_of(meaning: str) -> list[nodes.Node]:
    """Return a docstring as nodes: `words` in backticks are code, and nothing else is markup."""
    parts = re.split(r"`([^`]+)`", meaning)
    return [nodes.literal("", part) if index % 2 else nodes.Text(part) for index, part in enumerate(parts) if part]


class _Reference(SphinxDirective):
    """What both directives share."""

    required_arguments = 1

    def setting(self, prefix: str, entry: SettingEntry, differing: dict[str, str]) -> nodes.Node:
        """Return a setting: its name as a target, a line of facts, and its meaning."""
        name = f"{prefix}.{entry.name}"
        target = nodes.make_id(name)
        signature = addnodes.desc_signature(name, "", ids=[target], classes=["sig-object"])
        signature += addnodes.desc_name(name, name)
        self.env.domains.standard_domain.note_object("confval", name, target, location=signature)
        facts: list[tuple[str, str]] = [
            ("", entry.type.replace("|", " | ")),
            ("range", entry.limits),
            ("unit", entry.unit),
        ]
        facts += [("default", entry.default)]
        by_default: dict[str, list[str]] = {}
        for command, default in differing.items():
            by_default.setdefault(default, []).append(command)
        facts += [(f"for {', '.join(commands)}", default) for default, commands in by_default.items()]
        facts += [("the paper", entry.paper)]
        line = nodes.paragraph(classes=["facts"])
        for label, value in facts:
            if value:
                fact = nodes.inline(classes=["fact"])
                fact += nodes.Text(f"{label} " if label else "")
                fact += nodes.strong("", value) if label == "the paper" else nodes.literal("", value)
                line += fact
                line += nodes.Text(" ")
        content = addnodes.desc_content("", line, nodes.paragraph("", "", *text_of(f"{_sentence(entry.meaning)}")))
        return addnodes.desc("", signature, content, domain="std", objtype="confval", desctype="confval", noindex=False)

    def paragraph(self, *parts: nodes.Node | str) -> nodes.paragraph:
        """Return a paragraph of nodes and texts."""
        return nodes.paragraph("", "", *(nodes.Text(part) if isinstance(part, str) else part for part in parts))


def _sentence(meaning: str) -> str:
    """Return a docstring with a capital letter first and a period last, unless it begins with a name in code."""
    first = meaning if re.match(r"[a-z_]+[:(]|`|alpha_", meaning) else meaning[:1].upper() + meaning[1:]
    return first if first.endswith(".") else f"{first}."


class Settings(_Reference):
    """The settings of a section."""

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        known = sections()
        if name not in known:
            raise self.error(f"there is no section {name}: known are {', '.join(known)}")
        kind, by_command = known[name]
        own = defaults_of(kind)
        used = self.paragraph(f"{first_line(kind)} Commands: ")
        for index, command in enumerate(by_command):
            used += nodes.Text(", " if index else "")
            used += self.parse_inline(f"[{command}](#command-{command})")[0]
        used += nodes.Text(".")
        found: list[nodes.Node] = [used]
        for entry in entries_of(kind, own):
            differing = {
                command: shown(defaults[entry.name])
                for command, defaults in by_command.items()
                if defaults.get(entry.name) is not None and shown(_plain(defaults[entry.name])) != entry.default
            }
            found.append(self.setting(name, entry, differing))
        return found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


class Command(_Reference):
    """A command: usage, examples, its own settings, and links to its sections."""

    def run(self) -> list[nodes.Node]:
        (entry,) = (each for each in COMMANDS if each.name == self.arguments[0])
        found: list[nodes.Node] = [self.paragraph(entry.does)]
        if entry.extra:
            found.append(self.paragraph("Needs ", nodes.literal("", f"pip install 'raydream[{entry.extra}]'"), "."))
        if entry.aliases:
            former = nodes.literal("", f"raydream {entry.aliases[0]}")
            found.append(self.paragraph("Former name, which still works: ", former, "."))
        if entry.examples:
            text = "\n".join(f"raydream {example}" for example in entry.examples)
            found.append(nodes.literal_block(text, text, language="sh"))
        return found + (list(self._settings(entry)) if entry.config and not entry.given else [])

    def _settings(self, entry: CommandEntry) -> Iterator[nodes.Node]:
        kind: type = imported(entry.config)
        links = self.paragraph("Sections: ")
        for index, section in enumerate(sections_of(kind)):
            links += nodes.Text(", " if index else "")
            links += self.parse_inline(f"[{section}](#settings-{section})")[0]
        yield self.paragraph(*links.children, ".")
        for each in entries_of(kind, defaults_of(kind)):
            yield self.setting(entry.name, each, {})


def setup(app: Any) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("settings", Settings)
    app.add_directive("command", Command)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
