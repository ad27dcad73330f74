"""The command line that all jobs share: YAML, `--a.b value`, `--help`, and errors of one sentence.

The fields' own types and docstrings make the options, so nothing is said twice. Neither torch nor Ray is imported
here: a typing mistake is answered in a second.
"""

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import jsonargparse
import yaml
from pydantic import TypeAdapter, ValidationError

from raydream.config.conversion import as_dict, field_path, validate
from raydream.config.fields import Arguments
from raydream.errors import InputError, RaydreamError, first_line
from raydream.interruption import Interruption
from raydream.runs import references as runs
from raydream.runs import run_folder
from raydream.store.yaml_files import yaml_text
from raydream.terminal import printable

Config = TypeVar("Config")

RUN_DIR = "folder of the run, or its URL, such as s3://bucket/runs/first (default: runs/EXPERIMENT/TIME)"

YAML = jsonargparse.get_loader("yaml")
"""as the parser reads it: 1e-3 is a number"""
UNREADABLE = (OSError, ValueError, yaml.YAMLError, RecursionError)
"""what reading a file, or YAML, raises"""

EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
EXIT_SIGNALED = 128
"""plus the number of the signal"""
KEPT = "what was committed is kept"


@dataclass
class Command(Generic[Config]):
    """What a user asked for.

    Attributes:
        config: resolved and checked field by field.
        run_dir: path or URL of where the run goes; for a resumed one, where it is.
        resumed: the folder of a run that is resumed.
        by_default: `run_dir` was not chosen by the user; another one takes its place where another job is faster.
    """

    config: Config
    run_dir: str
    resumed: run_folder.RunFolder | None
    by_default: bool = False

    def folder(self, job: str) -> run_folder.RunFolder:
        """The folder of the run, which is begun here if it is new.

        Args:
            job: that begins it.
        """
        if self.resumed:
            return self.resumed
        settings = as_dict(self.config)
        while True:
            try:
                return run_folder.begin(self.run_dir, settings, job)
            except run_folder.TakenError:
                if not self.by_default:
                    raise
                self.run_dir = run_folder.default_path(settings["experiment"])


Defaults = Callable[[Sequence[str]], dict[str, Any]]
"""from a command line to settings that are taken where neither it nor a file that it names says another"""


def parse(
    kind: type[Config],
    job: str,
    arguments: Sequence[str] | None = None,
    defaults: Defaults = lambda given: {},
) -> Command[Config]:
    """Read the command line of a job.

    Args:
        kind: the job's configuration class; has a field `experiment`.
        job: what the job does, for `--help`.
        arguments: default: those of the process.
        defaults: of the settings, where they depend on what is asked for.

    Raises:
        InputError: an unknown option, a value out of range, or a run folder that does not fit.
        SystemExit: after `--help` or `--print_config` (status 0).
    """
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(description=job, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file of settings; later options override it")
    parser.add_argument("--run-dir", type=str, default=None, help=RUN_DIR)
    parser.add_argument("--resume", type=str, default=None, help="go on with the run in this folder")
    parser.add_class_arguments(kind)
    given = list(sys.argv[1:] if arguments is None else arguments)
    usual = defaults(given)
    parser.set_defaults(_leaves(usual))
    there = _resumed(given)
    resumed = None if there is None else _run_in(there)
    if resumed and not any(option.startswith("--config") for option in given):
        # What is not said stays as it was, so that only what is said is compared below.
        given = ["--config", str(resumed[0].config), *given]
    settings = _settings(parser, kind, _with_single_arguments(kind, given, usual))
    run_dir, resume = settings.pop("run_dir"), settings.pop("resume")
    settings.pop("config", None)
    settings = runs.resolve(settings)
    if resume is None:
        config = validate(kind, settings)
        where = run_dir or run_folder.default_path(getattr(config, "experiment"))  # noqa: B009
        if _is_submitted() and not ("://" in where or Path(where).is_absolute()):
            remedy = "the folder that a submitted job runs in goes with the cluster: name one on shared storage"
            raise InputError("--run-dir", where, "an absolute path that all nodes reach, or a URL", remedy)
        run_folder.check_new(where)
        return Command(config, where, None, by_default=not run_dir)
    folder, stored = resumed or _run_in(resume)
    config = validate(kind, stored)
    if run_dir is not None:
        raise InputError("--run-dir", run_dir, "left out beside --resume", "a run goes on in its own folder")
    difference = run_folder.first_difference(as_dict(config), as_dict(validate(kind, settings)))
    if difference:
        field, there, here = difference
        remedy = "a run goes on as it was begun: leave the option out, or begin a new run"
        raise InputError(field, here, f"{there!r}, as in {folder.shown('config.yaml')}", remedy)
    return Command(config, resume, folder)


def _settings(parser: jsonargparse.ArgumentParser, kind: type, given: list[str]) -> dict[str, Any]:
    """What a command line says, as nested dictionaries; raises InputError, and SystemExit as `parse` does."""
    try:
        settings: dict[str, Any] = _plain(parser.parse_args(given))
        return settings
    except jsonargparse.ArgumentError as error:
        raise _explain(kind, str(error), given) from error
    except UnicodeDecodeError as error:
        raise InputError("--config", " ".join(given), "a YAML file in UTF-8", f"reading it failed: {error}") from error
    except RecursionError as error:
        allowed, remedy = "settings that are nested a few levels deep", "one contains itself, or has too many levels"
        raise InputError("command line", " ".join(given), allowed, remedy) from error
    except ValueError as error:  # of a number with thousands of digits
        raise InputError("command line", " ".join(given), "what --help describes", first_line(error)) from error


def run_job(
    kind: type[Config],
    description: str | None,
    job: Callable[[Command[Config]], None],
    defaults: Defaults = lambda given: {},
) -> int:
    """Read the command line, run the job, and turn what can happen into an exit status and one sentence.

    Args:
        kind, description, defaults: as in `parse`.
        job: is given the command. It imports what is heavy itself, so that bad input is answered first.

    Returns:
        0 done, 1 failure, 2 bad input, 130 interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
    """
    # A user's own network is imported from where the job is started, as `python -m` would.
    sys.path.insert(1, str(Path.cwd()))
    command: Command[Config] | None = None
    with Interruption() as interruption:
        try:
            command = parse(kind, description or "", defaults=defaults)
            job(command)
            return 0
        except (KeyboardInterrupt, Exception) as error:
            status, said = _ending(error, interruption.signal)
        _say(said)
        if status != EXIT_BAD_INPUT and command is not None and run_folder.is_begun(command.run_dir):
            _say(f"to go on: {shlex.join([sys.executable, sys.argv[0], '--resume', command.run_dir])}")
        return status


def run_tool(parser: argparse.ArgumentParser, tool: Callable[[argparse.Namespace], None]) -> int:
    """Read the command line of what is no run, has no configuration and needs no Ray, and do it.

    Args:
        tool: is given the arguments; it imports what is heavy itself.

    Returns:
        0 done, 1 failure, 2 bad input, 130 interrupted by Ctrl-C.

    Raises:
        SystemExit: after `--help` (status 0), or an unknown option (status 2).
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has seen enough, such as head, ends it in silence
    try:
        tool(parser.parse_args())
        return 0
    except InputError as error:
        _say(f"error: {error}")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_INTERRUPTED
    except (RaydreamError, OSError) as error:
        _say(f"failed: {error}")
        return EXIT_FAILURE


def _ending(error: BaseException, signaled: signal.Signals | None) -> tuple[int, str]:
    """Exit status and sentence for what has ended a job; raises a mistake in the code again.

    Whatever follows a signal is that signal's end: Ray's processes may have got it, too, or a terminal is closed.
    """
    if signaled is not None:
        return EXIT_SIGNALED + signaled, f"interrupted by {signaled.name}: {KEPT}"
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED, f"interrupted: {KEPT}"
    if isinstance(error, InputError):
        return EXIT_BAD_INPUT, f"error: {error}"
    if isinstance(error, RaydreamError | OSError):
        return EXIT_FAILURE, f"failed: {error}"
    raise error


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; keyword arguments of a network stay together."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict) and name not in ("arguments", "sources")
        found |= _leaves(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def _plain(value: Any) -> Any:
    """Nested dictionaries for jsonargparse's name spaces, which lie in lists, too."""
    if isinstance(value, jsonargparse.Namespace):
        return {name: _plain(inner) for name, inner in vars(value).items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _run_in(where: str) -> tuple[run_folder.RunFolder, dict[str, Any]]:
    """The run to be resumed, and the configuration it was begun with; raises InputError where it cannot be."""
    folder, stored = run_folder.resume(where)
    run_folder.check_engine(folder)
    return folder, stored


def _resumed(given: Sequence[str]) -> str | None:
    """The folder that a command line says to go on with; None where it says nothing, or nothing that can be known."""
    for at, option in enumerate(given):
        if option.startswith("--resume="):
            return option.removeprefix("--resume=")
        if option == "--resume" and at + 1 < len(given):
            return given[at + 1]
    return None


def _is_submitted() -> bool:
    """Whether this is the entry point of a job that was submitted to a Ray cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # of a terminal that is closed
        print(*map(printable, text.split("\n")), sep="\n", file=sys.stderr, flush=True)


def _explain(kind: type, message: str, given: list[str]) -> InputError:
    """An error of jsonargparse, which has its own wording, as one of ours."""
    found = re.search(r'Parser key "([^"]+)":(?:.|\n)*(?:Got|Given) value: (.*)', message)
    annotation = _annotation(kind, found.group(1)) if found else None
    if found and annotation is not None:
        field, inner = found.groups()
        value = _given_value(given, field, inner)
        try:
            TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join([field, *field_path(first["loc"])])
            allowed = first["msg"].removeprefix("Input should be ")
            return InputError(path, first["input"], allowed, "see --help for what it means")
    text = " ".join(message.split())
    known = "a known setting"
    if unknown := re.search(r"nrecognized arguments: (\S+)", text):
        return InputError(unknown.group(1).split("=")[0], unknown.group(1), known, "--help lists them all")
    if unknown := re.search(r"Group '([^']+)' does not accept option '([^']+)'", text):
        return InputError(".".join(unknown.groups()), unknown.group(2), known, "--help lists them all")
    if missing := re.search(r"File does not exist: '([^']+)'", text):
        return InputError("--config", missing.group(1), "a YAML file", "there is none of that name")
    return InputError("command line", " ".join(given), "what --help describes", text.rstrip("."))


def _given_value(given: Sequence[str], field: str, otherwise: Any) -> Any:
    """What was given for a field last, typed or in a file; jsonargparse tells only the part that it stumbled over.

    What is no YAML is given as it is typed; a file that cannot be read is passed over, as the parser has its own words
    for that.
    """
    found = otherwise
    for option, following in zip(given, [*given[1:], ""], strict=True):
        name, has_value, value = option.partition("=")
        value = value if has_value else following
        with contextlib.suppress(*UNREADABLE):
            if name == f"--{field}":
                found = value
                found = YAML(value)
            elif name == "--config":
                found = _value_at(YAML(Path(value).read_text(encoding="utf-8")), field.split("."), found)
    return found


def _with_single_arguments(kind: type, given: Sequence[str], usual: Mapping[str, Any]) -> list[str]:
    """A command line in which each `--teacher.arguments.NAME VALUE` is part of one `--teacher.arguments {...}`.

    jsonargparse would read such a value as text, and forget what else lies in a nested dictionary.

    Args:
        usual: settings that are taken where the command line names no others.

    Raises:
        InputError: a value is missing, or no YAML.
    """
    rest, values = [], {}
    words = iter(given)
    for word in words:
        option, has_value, value = word.partition("=")
        group, _, name = option.removeprefix("--").partition(".arguments.")
        field = f"{group}.arguments"
        if not (option.startswith("--") and all(name.split(".")) and _annotation(kind, field) is Arguments):
            rest.append(word)
            continue
        if not has_value and (value := next(words, "--")).startswith("--"):
            raise InputError(option, None, "followed by its value", "give one, such as 8 or [5, 5]")
        try:
            loaded = YAML(value)
        except UNREADABLE as error:
            raise InputError(option, value, "a value in YAML, such as 8 or [5, 5]", first_line(error)) from error
        if field not in values:
            values[field] = _given_value(given, field, _value_at(usual, field.split("."), {}))
        values[field] = _with(values[field], name.split("."), loaded)
    return rest + [f"--{field}={yaml_text(value, flow=True)}" for field, value in values.items()]


def _with(settings: Any, path: Sequence[str], value: Any) -> Any:
    """Nested settings with a value at a path."""
    first, *inner = path
    own = settings if isinstance(settings, dict) else {}
    return own | {first: _with(own.get(first), inner, value) if inner else value}


def _value_at(settings: Any, path: list[str], otherwise: Any) -> Any:
    for name in path:
        if not isinstance(settings, Mapping) or name not in settings:
            return otherwise
        settings = settings[name]
    return settings


def _annotation(kind: type, dotted: str) -> Any:
    for name in dotted.split("."):
        if not is_dataclass(kind):
            return None
        types = {field.name: field.type for field in fields(kind)}
        if name not in types:
            return None
        kind = types[name]  # type: ignore[assignment]
    return kind
