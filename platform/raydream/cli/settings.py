"""A user's settings of a configuration, by dotted name, from files and options, each with its place."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from raydream.commands import COMMANDS, imported
from raydream.config.conversion import as_dict, first_error
from raydream.config.fields import Arguments
from raydream.errors import InputError, MistakeError, first_line
from raydream.shipped import PRESET, file_named, shipped_files
from raydream.store.documents import MOST_YAML_BYTES
from raydream.store.yaml_files import SettingsLoader
from raydream.terminal import printable
from raydream.tracking.sinks import trackers_of

ANYTHING = object
"""type of values within a network's keyword arguments"""
DAMAGED = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)
"""errors that PyYAML passes on if a value is not of its tag's type"""
OPTIONS = ("config", "run-dir", "resume", "track", "print-config", "help")
"""options that are not settings"""

Names = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """One value that a user gave.

    Attributes:
        path: the names that lead to it, section by section.
        value: as parsed from YAML.
        place: its place in a file, such as `mine.yaml:3`; empty for an option.
    """

    path: Names
    value: Any
    place: str = ""

    @property
    def name(self) -> str:
        """Return the dotted name, as in an option."""
        return ".".join(self.path)


@dataclass
class Asked:
    """The content of a command line.

    Attributes:
        settings: of files and options, in the order in which they were given; later ones take precedence.
        has_file: whether a configuration file was named.
        run_dir, resume, print_config: the options of that name.
        track: names of the trackers that curves are sent to.
    """

    settings: list[Setting] = field(default_factory=list)
    has_file: bool = False
    run_dir: str | None = None
    resume: str | None = None
    print_config: bool = False
    track: tuple[str, ...] = ()


def read_command_line(kind: type, command: str, words: Sequence[str]) -> Asked:
    """Read options and the files that they name; no other file is read.

    Args:
        kind: the configuration's class.
        command: its name, for error messages.
        words: of the command line.

    Raises:
        InputError: an unknown option or setting, a value of a wrong type, a file that cannot be read.
    """
    asked, waiting = Asked(), iter(words)
    for word in waiting:
        option, has_value, value = word.partition("=")
        name = option.removeprefix("--")
        if name == option or not name:
            is_file = word.endswith((".yaml", ".yml")) or word in shipped_files()
            file = f" Did you mean --config {word}?" if is_file else ""
            raise MistakeError(word, f"unexpected word {printable(word, 100)!r}: options begin with --.{file}")
        if name in ("print_config", "print-config") and not has_value:
            asked.print_config = True
            continue
        path = tuple(name.split("."))
        of = type_at(kind, path)
        if of is None and name not in OPTIONS:
            raise MistakeError(option, _unknown_option(kind, command, option))
        if not has_value and (value := next(waiting, "--")).startswith("--"):
            raise InputError(option, None, "followed by its value", "give one, such as 8 or [5, 5]")
        if name == "config":
            asked.settings += read_file(kind, command, value)
            asked.has_file = True
        elif name == "run-dir":
            asked.run_dir = value
        elif name == "resume":
            asked.resume = value
        elif name == "track":
            asked.track = trackers_of(value)
        else:
            asked.settings += _of_option(kind, path, of, value)
    for setting in asked.settings:
        check_value(kind, command, setting)
    return asked


def read_file(kind: type, command: str, name: str) -> list[Setting]:
    """Read the settings in a YAML file, or in a bundled one; raises InputError, see `read_command_line`."""
    path = file_named(name, "--config", PRESET)
    try:
        with path.open("rb") as file:
            text = file.read(MOST_YAML_BYTES + 1).decode()
    except OSError as error:
        raise InputError("--config", name, "a YAML file", f"reading it failed: {first_line(error)}") from error
    except UnicodeDecodeError as error:
        raise InputError("--config", name, "a YAML file in UTF-8", f"reading it failed: {error}") from error
    if len(text) > MOST_YAML_BYTES:
        raise InputError("--config", name, f"a YAML file of at most {MOST_YAML_BYTES:,} bytes", "make it smaller")
    values, lines = _parsed(kind, text, name)
    if not isinstance(values, dict):
        raise InputError("--config", name, "a YAML file of settings by name", "write them as in `seed: 3`")
    found = [Setting(at, value, f"{name}{_line(lines, at)}") for at, value in leaves(kind, values)]
    unknown = [setting for setting in found if type_at(kind, setting.path) is None]
    if unknown:
        raise MistakeError(unknown[0].name, _unknown_setting(kind, command, name, found, unknown[0]))
    return found


def type_at(kind: type, path: Sequence[str]) -> Any:
    """Return the type of a setting, `ANYTHING` within keyword arguments; None if there is no setting of this name."""
    of: Any = kind
    for name in path:
        if of is Arguments or of is ANYTHING:
            of = ANYTHING if name else None
        elif not is_dataclass(of):
            return None
        else:
            of = {each.name: each.type for each in fields(of)}.get(name)
    return of


def leaves(kind: type, settings: Mapping[str, Any], path: Names = ()) -> Iterator[tuple[Names, Any]]:
    """Yield nested settings one by one. Keyword arguments and other dictionaries that are not sections stay whole."""
    for name, value in settings.items():
        at = (*path, str(name))
        of = type_at(kind, at)
        if isinstance(of, type) and is_dataclass(of) and isinstance(value, Mapping):
            yield from leaves(kind, value, at)
        else:
            yield at, value


def placed(settings: Any, path: Names, value: Any) -> dict[str, Any]:
    """Return nested settings with a value at a path, without changing the given ones."""
    first, *inner = path
    own = settings if isinstance(settings, dict) else {}
    return own | {first: placed(own.get(first), tuple(inner), value) if inner else value}


@cache
def defaults_of(kind: type) -> dict[str, Any]:
    """Return the default values of all settings, nested."""
    found = {}
    for name, described in kind.__pydantic_fields__.items():  # type: ignore[attr-defined]
        value = described.get_default(call_default_factory=True)
        found[name] = as_dict(value) if is_dataclass(value) else value
    return found


def all_names(kind: type, prefix: str = "") -> Iterator[str]:
    """Return the dotted names of all sections and settings."""
    for each in fields(kind):
        yield f"{prefix}{each.name}"
        if isinstance(each.type, type) and is_dataclass(each.type):
            yield from all_names(each.type, f"{prefix}{each.name}.")


def check_value(kind: type, command: str, setting: Setting) -> None:
    """Check that a value is of its setting's type and in its range; raises InputError, which names its place."""
    of = type_at(kind, setting.path)
    if of is ANYTHING:  # keyword arguments are checked as a whole
        return
    try:
        TypeAdapter(of).validate_python(setting.value)
    except ValidationError as error:
        remedy = f"{_help_on(command, setting.path)} says what it means"
        remedy = f"it stands in {setting.place}, and {remedy}" if setting.place else remedy
        raise first_error(error, setting.path, remedy) from error


def located(error: InputError, settings: Sequence[Setting]) -> InputError:
    """Return an error that also names the file of the setting, if it is in one."""
    for setting in reversed(settings):
        if setting.name == error.field or error.field.startswith(f"{setting.name}."):
            if setting.place and type(error) is InputError:
                remedy = f"{error.remedy.rstrip('.')} (it stands in {setting.place})"
                return InputError(error.field, error.value, error.allowed, remedy)
            break
    return error


def _of_option(kind: type, path: Names, of: Any, text: str) -> Iterator[Setting]:
    value = _value(of, ".".join(path), text)
    if isinstance(of, type) and is_dataclass(of) and isinstance(value, Mapping):
        for at, inner in leaves(kind, value, path):
            if type_at(kind, at) is None:
                raise MistakeError(f"--{'.'.join(at)}", _unknown_option(kind, "", f"--{'.'.join(at)}"))
            yield Setting(at, inner)
    else:
        yield Setting(path, value)


def _value(of: Any, name: str, text: str) -> Any:
    """Return the value of a command line's text: text if the setting takes that, else parsed as YAML."""
    try:
        loaded = yaml.load(text, SettingsLoader)
    except (yaml.YAMLError, RecursionError, *DAMAGED) as error:
        if of is ANYTHING:
            remedy = first_line(error)
            raise InputError(f"--{name}", text, "a value in YAML, such as 8 or [5, 5]", remedy) from error
        return text
    if of is ANYTHING:
        return loaded
    adapter = TypeAdapter(of)
    if loaded is None or isinstance(loaded, dict | list):
        return loaded if _takes(adapter, loaded, strict=False) or not _takes(adapter, text, strict=True) else text
    return text if _takes(adapter, text, strict=True) else loaded


def _takes(adapter: TypeAdapter[Any], value: Any, strict: bool) -> bool:
    try:
        adapter.validate_python(value, strict=strict)
    except ValueError:
        return False
    return True


def _parsed(kind: type, text: str, name: str) -> tuple[Any, dict[Names, int]]:
    """Parse a YAML document into its value and the lines of its settings by path; raises InputError."""
    try:
        loader = SettingsLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return {}, {}
            values, lines = loader.construct_document(node), list(_lines(kind, node))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = error.problem or error.context
        raise MistakeError("--config", f"{name}{place} is no valid YAML (line, column): {problem}.") from error
    except RecursionError as error:
        allowed, remedy = "settings that are nested a few levels deep", "one contains itself, or has too many levels"
        raise InputError("--config", name, allowed, remedy) from error
    except (yaml.YAMLError, *DAMAGED) as error:
        raise MistakeError("--config", f"{name} is no valid YAML: {first_line(error)}.") from error
    return values, _once(lines, name)


def _once(lines: Sequence[tuple[Names, int]], file: str) -> dict[Names, int]:
    """Return lines by path; raises MistakeError for a setting that is given twice, of which YAML drops the first."""
    found: dict[Names, int] = {}
    for path, line in lines:
        if path in found:
            name = printable(".".join(path), 100)
            sentence = f"{name} is given twice in {file}, in lines {found[path]} and {line}: leave one out."
            raise MistakeError(name, sentence)
        found[path] = line
    return found


def _lines(kind: type, node: yaml.Node, path: Names = ()) -> Iterator[tuple[Names, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        at = (*path, str(key.value))
        yield at, key.start_mark.line + 1
        of = type_at(kind, at)
        if isinstance(of, type) and is_dataclass(of):
            yield from _lines(kind, value, at)


def _line(lines: Mapping[Names, int], path: Names) -> str:
    """Return `:LINE` of a setting or else of its section; empty if neither is known."""
    known = [lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines]
    return f":{known[0]}" if known else ""


def _nearest(kind: type, name: str, others: Sequence[str] = ()) -> str:
    """Return the known name that a user may have meant; empty if none is close."""
    known = [*all_names(kind), *others]
    close = difflib.get_close_matches(name, known, 1, 0.7)
    same = [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2]]
    return (close or same or [""])[0]


def _unknown_option(kind: type, command: str, option: str) -> str:
    near = _nearest(kind, option.removeprefix("--"), OPTIONS)
    remedy = f"Did you mean --{near}?" if near else f"{_help_on(command, ('all',))} lists them all."
    return f"unknown option {printable(option, 100)}. {remedy}"


def _unknown_setting(kind: type, command: str, file: str, found: Sequence[Setting], first: Setting) -> str:
    name = printable(first.name, 100)
    kinds = {entry.name: imported(entry.config) for entry in COMMANDS if entry.config}
    fitting = [
        other
        for other, its in kinds.items()
        if its is not kind and all(type_at(its, setting.path) is not None for setting in found)
    ]
    if fitting:  # the command that has the fewest settings beside these
        meant = min((each for each in fitting if each != "demo"), key=lambda each: len([*all_names(kinds[each])]))
        here = f", not of `raydream {command}`" if command else ""
        return f"{file} is a configuration of `raydream {meant}`{here}: {name} in {first.place} is no setting here."
    near = _nearest(kind, first.name)
    remedy = f"Did you mean {near}?" if near else f"{_help_on(command, ('all',))} lists them all."
    return f"unknown setting {name} in {first.place}. {remedy}"


def _help_on(command: str, path: Sequence[str]) -> str:
    topic = f" {path[0]}" if len(path) > 1 or path == ("all",) else ""
    return f"`raydream {command} --help{topic}`" if command else f"--help{topic}"
